from typing import ClassVar

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies: ClassVar = [
        ("dashboard", "0008_first_reads"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations: ClassVar = [
        migrations.CreateModel(
            name="RunLookup",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("run_id", models.CharField(max_length=255)),
                (
                    "by_search",
                    models.BooleanField(
                        default=False, help_text="Paid from the share of the hour for searches."
                    ),
                ),
                (
                    "requests",
                    models.PositiveIntegerField(
                        help_text="Sent for it, of those of the last hour."
                    ),
                ),
                (
                    "repeated",
                    models.BooleanField(default=False, help_text="It had been asked before."),
                ),
                ("asked_at", models.DateTimeField(db_index=True)),
                (
                    "lease_until",
                    models.DateTimeField(
                        help_text="Until then the process that asks is waited for.", null=True
                    ),
                ),
                (
                    "answered_at",
                    models.DateTimeField(
                        help_text="When Northflank answered: not known there, unless the run is here.",
                        null=True,
                    ),
                ),
                (
                    "error",
                    models.TextField(blank=True, help_text="Why the stage could not be asked."),
                ),
                (
                    "person",
                    models.ForeignKey(
                        help_text="Who opened the full address of the run.",
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="run_lookups",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "stage",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="run_lookups",
                        to="dashboard.stage",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("run_id", "stage"), name="one_lookup_a_run_and_stage"
                    )
                ],
            },
        ),
    ]
