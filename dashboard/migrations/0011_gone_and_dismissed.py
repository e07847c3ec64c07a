from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies: ClassVar = [
        ("dashboard", "0010_aborts_sent_again"),
    ]

    operations: ClassVar = [
        migrations.AddField(
            model_name="cataloguesweep",
            name="left_out",
            field=models.PositiveIntegerField(default=0, help_text="Entries that can't be read."),
        ),
        migrations.AddField(
            model_name="cataloguesweep",
            name="surplus",
            field=models.PositiveIntegerField(
                default=0, help_text="Entries beyond what was asked for, which were not taken."
            ),
        ),
        migrations.AddField(
            model_name="pipeline",
            name="missing_at",
            field=models.DateTimeField(
                blank=True,
                help_text="Since when complete lists lack it; gone by a later one.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="project",
            name="missing_at",
            field=models.DateTimeField(
                blank=True,
                help_text="Since when complete lists lack it; gone by a later one.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="stage",
            name="left_out",
            field=models.PositiveIntegerField(default=0, help_text="Entries that can't be read."),
        ),
        migrations.AddField(
            model_name="stage",
            name="surplus",
            field=models.PositiveIntegerField(
                default=0, help_text="Entries beyond what was asked for, which were not taken."
            ),
        ),
    ]
