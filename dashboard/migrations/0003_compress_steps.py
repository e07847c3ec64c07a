"""Compress the steps of the runs that there are; an older version keeps those that it reads."""

from django.db import migrations

from dashboard.migrations import _uncompressed_steps


def compress(apps, schema_editor):
    _uncompressed_steps.compress(schema_editor.connection)


class Migration(migrations.Migration):
    atomic = False  # in batches, which hold up nobody
    dependencies = [("dashboard", "0002_sessions_rights_and_pruning")]
    operations = [migrations.RunPython(compress, migrations.RunPython.noop)]
