from typing import ClassVar

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies: ClassVar = [
        ("dashboard", "0010_aborts_sent_again"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
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
            model_name="stage",
            name="missing_at",
            field=models.DateTimeField(
                blank=True,
                help_text="Since when Northflank knows its release flow no more.",
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
        migrations.AlterField(
            model_name="run",
            name="gone_at",
            field=models.DateTimeField(
                help_text="Since when Northflank knows it no more.", null=True
            ),
        ),
        migrations.AlterField(
            model_name="run",
            name="in_flight",
            field=models.BooleanField(
                help_text="Not concluded, nor dismissed since Northflank knows it no more."
            ),
        ),
        migrations.CreateModel(
            name="Dismissal",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("username", models.TextField(help_text="Kept when the account is deleted.")),
                ("at", models.DateTimeField()),
                ("undone_at", models.DateTimeField(null=True)),
                (
                    "undone_by",
                    models.TextField(blank=True, help_text="Empty: Northflank knew the run again."),
                ),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="dismissals",
                        to="dashboard.run",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="dismissals",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ["pk"],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("undone_at", None)),
                        fields=("run",),
                        name="one_open_dismissal_a_run",
                    )
                ],
            },
        ),
    ]
