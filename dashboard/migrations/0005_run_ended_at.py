from typing import Any

from django.db import migrations, models
from django.db.models.functions import Coalesce


def add_ended_at(**options: Any) -> migrations.AddField:
    field = models.GeneratedField(
        db_persist=True,
        expression=models.Case(
            models.When(
                concluded=True,
                then=Coalesce("concluded_at", "updated_at", "created_at"),
            ),
            models.When(in_flight=False, then=Coalesce("removed_at", "created_at")),
        ),
        help_text="When it concluded or, if that is not known, was last updated or created; when "
        "the removal of a dismissed run was noticed. Empty: in flight.",
        output_field=models.DateTimeField(),
        **options,
    )
    return migrations.AddField(model_name="run", name="ended_at", field=field)


class Migration(migrations.Migration):
    dependencies = [("dashboard", "0004_run_approval_since")]

    operations = [
        migrations.RemoveIndex(model_name="run", name="run_concluded_at_idx"),
        migrations.SeparateDatabaseAndState(
            # SQLite cannot add a stored column: it has to rebuild the table, which Django does
            # unless the field is nullable. The column is nullable either way.
            database_operations=[add_ended_at()],
            state_operations=[add_ended_at(null=True)],
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(fields=["-ended_at"], name="run_ended_at_idx"),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(
                condition=models.Q(("concluded", True), ("status", "failure")),
                fields=["-ended_at", "-id"],
                name="run_failures_idx",
            ),
        ),
    ]
