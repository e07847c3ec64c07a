"""Whether the account of a PostgreSQL database may use all tables.

If another account owns them (docs/run/install.md), the dashboard's has no privileges on those that
a migration has added until they are granted.
"""

from django.apps import apps
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder

# UPDATE and DELETE may be withheld: some tables are only added to.
_TABLES_WITHOUT_PRIVILEGES = """
    SELECT quote_ident(current_user), string_agg(quote_ident(name), ', ' ORDER BY name)
    FROM unnest(%s::text[]) AS name, to_regclass(quote_ident(name)) AS existing
    WHERE NOT has_table_privilege(existing, 'SELECT')
    OR name <> ALL(%s) AND NOT has_table_privilege(existing, 'INSERT')
"""


def missing_privileges(database: BaseDatabaseWrapper) -> str:
    """Return the GRANT that the owner has to run for the account; empty if it lacks nothing.

    Tables that do not exist are ignored. On SQLite there are no accounts.
    """
    if database.vendor != "postgresql":
        return ""
    written_by_migrations = [
        model._meta.db_table for model in (ContentType, Permission, MigrationRecorder.Migration)
    ]
    models = apps.get_models(include_auto_created=True)
    tables = {model._meta.db_table for model in models}.union(written_by_migrations)
    with database.cursor() as cursor:
        cursor.execute(_TABLES_WITHOUT_PRIVILEGES, [sorted(tables), written_by_migrations])
        [(account, names)] = cursor.fetchall()
    return f"GRANT SELECT, INSERT, UPDATE, DELETE ON {names} TO {account}" if names else ""
