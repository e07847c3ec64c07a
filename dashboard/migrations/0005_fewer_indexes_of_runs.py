import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Drop indexes of runs that others contain."""

    is_after_restart = True  # SQLite writes the table anew, without what 0004 takes over
    dependencies = [("dashboard", "0004_drop_uncompressed_steps")]

    operations = [
        migrations.RemoveConstraint("run", "run_unique_in_stage"),
        migrations.AlterField("run", "run_id", models.CharField(max_length=255)),
        migrations.AlterField(
            "run",
            "stage",
            models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="runs",
                to="dashboard.stage",
            ),
        ),
        migrations.AlterField(
            "run",
            "next_detail_sync_at",
            models.DateTimeField(
                help_text="When its detail is due to be read; also the lease of the worker reading it.",
                null=True,
            ),
        ),
        migrations.AddConstraint(
            "run",
            models.UniqueConstraint(fields=("run_id", "stage"), name="run_unique_in_stage"),
        ),
        migrations.AddIndex(
            "run",
            models.Index(
                condition=models.Q(("next_detail_sync_at__isnull", False)),
                fields=["next_detail_sync_at"],
                name="run_next_detail_sync_at_idx",
            ),
        ),
    ]
