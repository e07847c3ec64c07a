from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("dashboard", "0002_search_texts")]

    # Nullable, so that SQLite adds them without a copy of the table.
    operations = [
        migrations.AddField(
            "run",
            "failed_step",
            models.TextField(
                null=True,
                help_text="Step at which it failed; empty: none names an error; null: it has not "
                "failed, or its detail was not read since.",
            ),
        ),
        migrations.AddField(
            "run",
            "failed_step_error",
            models.TextField(
                null=True, help_text="First line of that step's error, cut: see runs/failures.py."
            ),
        ),
    ]
