import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("dashboard", "0003_run_failed_step"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    # Nullable, so that SQLite adds it without a copy of the table.
    operations = [
        migrations.AddField(
            model_name="run",
            name="release_key",
            field=models.TextField(
                help_text="What it released, as its steps name it: “commit” or “build”, and their "
                "ids. Empty: not known.",
                null=True,
            ),
        ),
        migrations.CreateModel(
            name="Star",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "pipeline",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="dashboard.pipeline",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="dashboard.project",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("user", "pipeline"), name="star_unique_pipeline"
                    ),
                    models.UniqueConstraint(fields=("user", "project"), name="star_unique_project"),
                    models.CheckConstraint(
                        condition=models.Q(("pipeline", None), ("project", None), _connector="XOR"),
                        name="star_of_one",
                    ),
                ],
            },
        ),
    ]
