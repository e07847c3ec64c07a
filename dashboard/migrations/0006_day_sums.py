import django.db.models.deletion
from django.db import migrations, models


def _sums(owner: str) -> list[tuple[str, models.Field]]:
    """Return the fields of the sums of a day, of a stage or a project."""
    return [
        (
            "id",
            models.BigAutoField(
                auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
            ),
        ),
        ("day", models.DateField(help_text="In UTC, when the runs ended.")),
        (
            "counts",
            models.JSONField(help_text='Number of runs by what they count as: {"success": 3}.'),
        ),
        (
            owner,
            models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="days",
                to=f"dashboard.{owner}",
            ),
        ),
    ]


_STAGE_NAMES = [(name, name) for name in ("Development", "Staging", "Production")]


class Migration(migrations.Migration):
    """Add sums of days; the sync makes them for the runs of before: see sync/day_sums.py."""

    dependencies = [("dashboard", "0005_lead_round")]

    operations = [
        # Nullable, so that SQLite adds it without a copy of the table.
        migrations.AddField(
            "run",
            "counted_as",
            models.TextField(
                null=True,
                help_text="As what the sums of days contain it: see runs/trends.py; empty: not "
                "yet, or it has not concluded.",
            ),
        ),
        migrations.CreateModel(
            "ProjectDay",
            [
                *_sums("project"),
                ("stage_name", models.CharField(choices=_STAGE_NAMES, max_length=20)),
            ],
        ),
        migrations.CreateModel("StageDay", _sums("stage")),
        migrations.AddConstraint(
            "projectday",
            models.UniqueConstraint(
                fields=("project", "stage_name", "day"), name="project_day_unique"
            ),
        ),
        migrations.AddConstraint(
            "stageday",
            models.UniqueConstraint(fields=("stage", "day"), name="stage_day_unique"),
        ),
    ]
