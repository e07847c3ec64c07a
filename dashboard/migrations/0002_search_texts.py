import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Add the texts that runs are found by; the sync fills them in: see sync/search_texts.py."""

    dependencies = [("dashboard", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="SearchText",
            fields=[
                (
                    "position",
                    models.BigIntegerField(
                        help_text="Place of the run by its creation: see `position`.",
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "text",
                    models.TextField(help_text="Title, id, current step and description, folded."),
                ),
                (
                    "run",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="search_text",
                        to="dashboard.run",
                    ),
                ),
                (
                    "stage",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="dashboard.stage",
                    ),
                ),
            ],
        ),
    ]
