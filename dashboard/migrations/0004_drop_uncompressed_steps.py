"""Take over what the older version has read meanwhile, and drop its columns."""

from django.db import migrations
from django.utils import timezone

from dashboard.migrations import _uncompressed_steps


def take_over(apps, schema_editor):
    database = schema_editor.connection
    if not _uncompressed_steps.exist(database):
        return  # an earlier attempt has dropped them, and ended before it was recorded
    _uncompressed_steps.compress(database)
    _uncompressed_steps.read_again_where_different(database, timezone.now())
    _uncompressed_steps.drop(database)


class Migration(migrations.Migration):
    is_after_restart = True  # the older version needs the columns: db/pending_migrations.py
    atomic = False  # in batches, which hold up nobody
    dependencies = [("dashboard", "0003_compress_steps")]
    operations = [migrations.RunPython(take_over)]
