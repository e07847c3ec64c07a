import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("dashboard", "0005_lead_round"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    # Nullable, so that SQLite adds it without a copy of the table.
    operations = [
        migrations.AddField(
            model_name="run",
            name="overdue_since",
            field=models.DateTimeField(
                help_text="When it was last found to have become overdue; kept when it no longer "
                "is.",
                null=True,
            ),
        ),
        migrations.CreateModel(
            name="LastVisit",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("at", models.DateTimeField()),
                (
                    "version",
                    models.BigIntegerField(
                        help_text="Number of the latest visible change at that time."
                    ),
                ),
            ],
        ),
    ]
