from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies: ClassVar = [("dashboard", "0007_looking")]

    operations: ClassVar = [
        migrations.AddField(
            model_name="budget",
            name="probe_until",
            field=models.DateTimeField(
                help_text="The lease of the one request that tries after such a pause.", null=True
            ),
        ),
        migrations.AddField(
            model_name="budget",
            name="refusals",
            field=models.PositiveIntegerField(
                default=0, help_text="429s in a row, each after the pause of the one before."
            ),
        ),
        migrations.AddField(
            model_name="stage",
            name="in_flight_unread",
            field=models.BooleanField(
                default=False,
                help_text="Its newest runs were read; of older ones those in flight were not.",
            ),
        ),
    ]
