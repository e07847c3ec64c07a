from typing import Any, ClassVar

from django.db import migrations, models


def sent_once(apps: Any, _: Any) -> None:
    """Until now an abort was sent once at most."""
    sent = apps.get_model("dashboard", "Abort").objects.exclude(sent_at=None)
    sent.update(sendings=1)


class Migration(migrations.Migration):
    dependencies: ClassVar = [("dashboard", "0009_run_lookups")]

    operations: ClassVar = [
        migrations.AddField(
            model_name="abort",
            name="sendings",
            field=models.PositiveSmallIntegerField(
                default=0, help_text="How often it was sent: as many lines of its trail say so."
            ),
        ),
        migrations.AlterField(
            model_name="abort",
            name="sent_at",
            field=models.DateTimeField(
                null=True,
                help_text="Written just before each sending: from then on it may have arrived.",
            ),
        ),
        migrations.AddField(
            model_name="abort",
            name="begun_at",
            field=models.DateTimeField(
                null=True, help_text="Since when it was under way, if longer than since the press."
            ),
        ),
        migrations.AddField(
            model_name="run",
            name="aborting_since",
            field=models.DateTimeField(
                null=True,
                help_text="When its abort began, by a press here or Northflank's word; or unknown.",
            ),
        ),
        migrations.RunPython(sent_once, migrations.RunPython.noop),
    ]
