"""Append-only audit of aborts: the database rejects changes that our code never makes either."""

import ast
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.db.models import ProtectedError
from django.utils import timezone

from dashboard.accounts import access_log, rights_changes
from dashboard.management.commands.serve import prepare
from dashboard.models import (
    Abort,
    AccessEvent,
    BulkAbort,
    BulkAbortItem,
    Project,
    Pruning,
    RightsChange,
    append_only,
)
from dashboard.models.abort_lifecycle import EventType
from dashboard.models.accounts.access import AccessKind
from dashboard.models.bulk_aborts import BulkAbortItemResult
from tests.support import factories

ON_POSTGRESQL = connection.vendor == "postgresql"

IMMUTABLE_VALUES: dict[str, Any] = {
    "id": 7_000_000,
    "run_id": 7_000_000,
    "work_id": 7_000_000,
    "username": "somebody else",
    "reason": "A better one",
    "client_address": "192.0.2.9",
    "via": "api",
    "token_name": "another",
    "requested_at": timezone.now(),
    "again_of_id": 7_000_000,
    "bulk_abort_id": 7_000_000,
    "already_aborting_since": timezone.now(),
}
STATE_VALUES: dict[str, Any] = {
    "state": "refused",
    "claimed_at": timezone.now(),
    "sent_at": timezone.now(),
    "send_count": 7,
    "responded_at": timezone.now(),
    "response": "Something else.",
    "response_status": 418,
    "error_id": "x",
    "retry_at": timezone.now(),
    "outcome": "success",
    "settled_at": timezone.now(),
}

BULK_IMMUTABLE_VALUES = {
    name: value
    for name, value in IMMUTABLE_VALUES.items()
    if name not in {"run_id", "work_id", "again_of_id", "bulk_abort_id", "already_aborting_since"}
} | {"key": uuid4().hex}
ITEM_IMMUTABLE_VALUES = dict.fromkeys(("id", "bulk_abort_id", "position", "run_id"), 7_000_000)
ACCESS_IMMUTABLE_VALUES: dict[str, Any] = {
    "id": 7_000_000,
    "occurred_at": timezone.now(),
    "kind": "signed_out",
    "username": "somebody else",
    "changed_by": "somebody else",
    "client_address": "192.0.2.9",
    "token_name": "another",
    "detail": "Something else.",
}
RIGHTS_IMMUTABLE_VALUES: dict[str, Any] = {
    "id": 7_000_000,
    "occurred_at": timezone.now(),
    "changed_by": "somebody else",
    "client_address": "192.0.2.9",
    "subject_kind": "group",
    "subject_key": 7_000_000,
    "subject": "somebody else",
    "detail": "Something else.",
    "before": "{}",
    "after": "{}",
}
ITEM_RESULT = {"result": "ended", "abort_id": None, "note": "Something else."}


@pytest.fixture
def abort(manager: User) -> Abort:
    """An abort that is under way, with one event."""
    abort = factories.abort(factories.run(factories.stage()), manager, reason="Stuck")
    abort.add_event(EventType.REQUESTED, timezone.now())
    return abort


@pytest.fixture
def settled_abort(abort: Abort) -> Abort:
    assert abort.apply(EventType.CONCLUDED, timezone.now(), "aborted")
    return abort


@pytest.fixture
def batch(manager: User) -> BulkAbort:
    """A bulk abort of two runs: one had ended, the other waits for its turn."""
    now = timezone.now()
    row = BulkAbort.objects.create(
        key=uuid4(), user=manager, username="manager", reason="Stuck", requested_at=now,
        claimed_at=now,
    )  # fmt: skip
    for position, result in enumerate(
        (BulkAbortItemResult.ENDED, BulkAbortItemResult.WAITING), start=1
    ):
        run = factories.run(factories.stage())
        BulkAbortItem.objects.create(bulk_abort=row, position=position, run=run, result=result)
    return row


@pytest.fixture
def access_event(manager: User) -> AccessEvent:
    return access_log.record(
        AccessKind.SIGNED_IN, timezone.now(), user=manager, client_address="192.0.2.1"
    )


@pytest.fixture
def rights_change(manager: User) -> RightsChange:
    before = {rights_changes.account(manager.pk): None}
    [change] = rights_changes.record_changes(
        before, "Added.", timezone.now(), changed_by=None, client_address="192.0.2.1"
    )
    return change


def rows(table: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table} ORDER BY id")
        return list(cursor.fetchall())


def assert_refused(statement: str, *values: Any) -> None:
    """Fail unless the database refuses a statement and nothing has changed."""
    before = [rows(table) for table in append_only.TABLES]
    with (
        pytest.raises(DatabaseError, match="cannot be"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement, values)
    assert [rows(table) for table in append_only.TABLES] == before


# --- Refused changes -----------------------------------------------------------------------------


def test_abort_columns_are_all_guarded() -> None:
    columns = {field.column for field in Abort._meta.concrete_fields}
    assert columns == {*IMMUTABLE_VALUES, *STATE_VALUES, "user_id"}


@pytest.mark.parametrize("column", IMMUTABLE_VALUES)
def test_abort_request_column_update_by_sql_is_refused(column: str, abort: Abort) -> None:
    assert_refused(f"UPDATE dashboard_abort SET {column} = %s", IMMUTABLE_VALUES[column])


@pytest.mark.parametrize("column", IMMUTABLE_VALUES)
def test_abort_request_column_update_to_same_value_is_refused(column: str, abort: Abort) -> None:
    assert_refused(f"UPDATE dashboard_abort SET {column} = {column}")


@pytest.mark.parametrize("column", [column for column in IMMUTABLE_VALUES if column != "id"])
def test_abort_request_column_update_by_orm_is_refused(column: str, abort: Abort) -> None:
    with pytest.raises(DatabaseError, match="cannot be"), transaction.atomic():
        Abort.objects.filter(pk=abort.pk).update(**{column: IMMUTABLE_VALUES[column]})


def test_abort_save_is_refused(abort: Abort) -> None:
    abort.reason = "A better one"
    with pytest.raises(DatabaseError, match="cannot be"), transaction.atomic():
        abort.save()


@pytest.mark.parametrize("column", STATE_VALUES)
def test_settled_abort_update_by_sql_is_refused(column: str, settled_abort: Abort) -> None:
    assert_refused(f"UPDATE dashboard_abort SET {column} = %s", STATE_VALUES[column])


@pytest.mark.parametrize("column", STATE_VALUES)
def test_settled_abort_update_by_orm_is_refused(column: str, settled_abort: Abort) -> None:
    with pytest.raises(DatabaseError, match="cannot be"), transaction.atomic():
        Abort.objects.filter(pk=settled_abort.pk).update(**{column: STATE_VALUES[column]})


def test_settled_abort_reopen_is_refused(settled_abort: Abort) -> None:
    assert_refused("UPDATE dashboard_abort SET settled_at = NULL, state = 'requested'")


def test_abort_change_of_user_is_refused(abort: Abort, viewer: User) -> None:
    assert_refused("UPDATE dashboard_abort SET user_id = %s", viewer.pk)


def test_abort_delete_by_sql_is_refused(abort: Abort) -> None:
    assert_refused("DELETE FROM dashboard_abort")


def test_abort_without_events_delete_by_sql_is_refused(manager: User) -> None:
    factories.abort(factories.run(factories.stage()), manager)
    assert_refused("DELETE FROM dashboard_abort")


def test_abort_delete_by_orm_is_refused(abort: Abort) -> None:
    with pytest.raises(ProtectedError):
        abort.delete()
    with pytest.raises(DatabaseError, match="cannot be"), transaction.atomic():
        Abort.objects.all()._raw_delete(connection.alias)
    assert Abort.objects.count() == 1


def test_abort_event_delete_by_sql_is_refused(abort: Abort) -> None:
    assert_refused("DELETE FROM dashboard_abortevent")


def test_abort_event_delete_by_orm_is_refused(abort: Abort) -> None:
    with pytest.raises(DatabaseError, match="cannot be"), transaction.atomic():
        abort.events.all().delete()
    assert abort.events.count() == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", 7_000_000),
        ("abort_id", 7_000_000),
        ("event_type", "sent"),
        ("occurred_at", timezone.now()),
        ("detail", "x"),
    ],
)
def test_abort_event_update_by_sql_is_refused(column: str, value: Any, abort: Abort) -> None:
    assert_refused(f"UPDATE dashboard_abortevent SET {column} = %s", value)


def test_abort_event_update_by_orm_is_refused(abort: Abort) -> None:
    line = abort.events.get()
    line.detail = "x"
    with pytest.raises(DatabaseError, match="cannot be"), transaction.atomic():
        line.save()
    with pytest.raises(DatabaseError, match="cannot be"), transaction.atomic():
        abort.events.update(detail="x")


def test_bulk_abort_columns_are_all_guarded() -> None:
    columns = {field.column for field in BulkAbort._meta.concrete_fields}
    assert columns == {*BULK_IMMUTABLE_VALUES, "user_id", "claimed_at", "settled_at"}
    columns = {field.column for field in BulkAbortItem._meta.concrete_fields}
    assert columns == {*ITEM_IMMUTABLE_VALUES, *ITEM_RESULT}


@pytest.mark.parametrize("column", BULK_IMMUTABLE_VALUES)
def test_bulk_abort_request_column_update_is_refused(column: str, batch: BulkAbort) -> None:
    assert_refused(f"UPDATE dashboard_bulkabort SET {column} = %s", BULK_IMMUTABLE_VALUES[column])


def test_bulk_abort_change_of_user_is_refused(batch: BulkAbort, viewer: User) -> None:
    assert_refused("UPDATE dashboard_bulkabort SET user_id = %s", viewer.pk)


def test_settled_bulk_abort_reopen_is_refused(batch: BulkAbort) -> None:
    BulkAbort.objects.update(settled_at=timezone.now())
    assert_refused("UPDATE dashboard_bulkabort SET settled_at = NULL")


def test_bulk_abort_delete_is_refused(manager: User) -> None:
    now = timezone.now()
    BulkAbort.objects.create(key=uuid4(), username="manager", requested_at=now, claimed_at=now)
    assert_refused("DELETE FROM dashboard_bulkabort")


def test_bulk_abort_item_delete_is_refused(batch: BulkAbort) -> None:
    assert_refused("DELETE FROM dashboard_bulkabortitem")
    with pytest.raises(DatabaseError, match="cannot be"), transaction.atomic():
        batch.items.all().delete()
    assert batch.items.count() == 2


@pytest.mark.parametrize("column", ITEM_IMMUTABLE_VALUES)
def test_bulk_abort_item_request_column_update_is_refused(column: str, batch: BulkAbort) -> None:
    assert_refused(
        f"UPDATE dashboard_bulkabortitem SET {column} = %s", ITEM_IMMUTABLE_VALUES[column]
    )


@pytest.mark.parametrize("column", ITEM_RESULT)
def test_bulk_abort_item_result_update_is_refused(column: str, batch: BulkAbort) -> None:
    assert_refused(
        f"UPDATE dashboard_bulkabortitem SET {column} = %s WHERE result <> 'waiting'",
        ITEM_RESULT[column],
    )


def test_access_event_columns_are_all_guarded() -> None:
    columns = {field.column for field in AccessEvent._meta.concrete_fields}
    assert columns == {*ACCESS_IMMUTABLE_VALUES, "user_id"}


@pytest.mark.parametrize("column", ACCESS_IMMUTABLE_VALUES)
def test_access_event_column_update_is_refused(column: str, access_event: AccessEvent) -> None:
    assert_refused(
        f"UPDATE dashboard_accessevent SET {column} = %s", ACCESS_IMMUTABLE_VALUES[column]
    )


def test_access_event_delete_is_refused(access_event: AccessEvent) -> None:
    assert_refused("DELETE FROM dashboard_accessevent")


def test_old_access_event_delete_at_a_prompt_is_refused(manager: User) -> None:
    record_access_event(manager, days=5000)
    Pruning.objects.create(pk=1)
    assert_refused("DELETE FROM dashboard_accessevent")


def test_access_event_delete_within_limit_is_allowed(manager: User) -> None:
    old, younger = record_access_event(manager, days=60), record_access_event(manager, days=40)
    Pruning.objects.create(pk=1, access_log_limit=timezone.now() - timedelta(days=50))
    assert_refused(f"DELETE FROM dashboard_accessevent WHERE id = {younger.pk}")
    AccessEvent.objects.filter(pk=old.pk).delete()
    assert AccessEvent.objects.get() == younger


def test_young_access_event_delete_is_refused_whatever_the_limit(manager: User) -> None:
    record_access_event(manager, days=append_only.MIN_ACCESS_LOG_DAYS - 1)
    Pruning.objects.create(pk=1, access_log_limit=timezone.now() + timedelta(days=50))
    assert_refused("DELETE FROM dashboard_accessevent")


def record_access_event(user: User, days: int) -> AccessEvent:
    return access_log.record(AccessKind.SIGNED_IN, timezone.now() - timedelta(days=days), user=user)


def test_access_event_user_change_is_refused(access_event: AccessEvent, viewer: User) -> None:
    assert_refused("UPDATE dashboard_accessevent SET user_id = %s", viewer.pk)


def test_access_event_outlives_its_account(access_event: AccessEvent, manager: User) -> None:
    manager.delete()
    access_event.refresh_from_db()
    assert (access_event.user, access_event.username) == (None, "manager")


def test_rights_change_columns_are_all_guarded() -> None:
    columns = {field.column for field in RightsChange._meta.concrete_fields}
    assert columns == set(RIGHTS_IMMUTABLE_VALUES)


@pytest.mark.parametrize("column", RIGHTS_IMMUTABLE_VALUES)
def test_rights_change_column_update_is_refused(column: str, rights_change: RightsChange) -> None:
    assert_refused(
        f"UPDATE dashboard_rightschange SET {column} = %s", RIGHTS_IMMUTABLE_VALUES[column]
    )


def test_rights_change_delete_is_refused(rights_change: RightsChange) -> None:
    assert_refused("DELETE FROM dashboard_rightschange")


def test_rights_change_outlives_its_account(rights_change: RightsChange, manager: User) -> None:
    manager.delete()
    rights_change.refresh_from_db()
    assert rights_change.subject == "manager"


@pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite knows no TRUNCATE")
@pytest.mark.parametrize("table", [*append_only.TABLES, "dashboard_run"])
def test_audit_table_truncate_is_refused(table: str, abort: Abort) -> None:
    connection.check_constraints()  # PostgreSQL's own deferred checks would fail otherwise
    assert_refused(f"TRUNCATE {table} CASCADE")


def test_project_with_abort_delete_is_refused(abort: Abort) -> None:
    with pytest.raises(ProtectedError):
        Project.objects.get().delete()
    assert Abort.objects.get().run.stage.pipeline.project.slug == "shop"


# --- Allowed changes -----------------------------------------------------------------------------


def test_open_abort_state_change_is_allowed(abort: Abort) -> None:
    assert abort.apply(EventType.CONCLUDED, timezone.now(), "aborted")
    assert Abort.objects.get().outcome == "aborted"


def test_bulk_abort_progress_is_allowed(batch: BulkAbort) -> None:
    batch.items.filter(result=BulkAbortItemResult.WAITING).update(
        result=BulkAbortItemResult.ENDED, note="So."
    )
    BulkAbort.objects.update(claimed_at=timezone.now())
    BulkAbort.objects.update(settled_at=timezone.now())
    assert set(batch.items.values_list("result", flat=True)) == {"ended"}


def test_bulk_abort_keeps_username_of_deleted_account(batch: BulkAbort, manager: User) -> None:
    manager.delete()
    batch.refresh_from_db()
    assert (batch.user_id, batch.username) == (None, "manager")


def test_settled_abort_event_insert_is_allowed(settled_abort: Abort) -> None:
    settled_abort.add_event(EventType.STATUS_CHANGED_AFTER_END, timezone.now(), detail="success")
    assert settled_abort.events.count() == 3


def test_abort_keeps_username_of_deleted_account(settled_abort: Abort, manager: User) -> None:
    manager.delete()
    settled_abort.refresh_from_db()
    assert (settled_abort.user_id, settled_abort.username) == (None, "manager")


def test_run_with_settled_abort_may_have_another(settled_abort: Abort, manager: User) -> None:
    factories.abort(settled_abort.run, manager, again_of=settled_abort)
    assert Abort.objects.count() == 2


# --- Restored triggers ---------------------------------------------------------------------------


@pytest.fixture
def triggers_removed(transactional_db: None) -> Iterator[None]:
    """Remove the triggers, as after a migration that failed halfway."""
    append_only.drop_triggers(connection)
    yield
    append_only.install_triggers(connection)


def test_migrated_database_is_guarded(db: None) -> None:
    assert append_only.are_triggers_installed(connection)


@pytest.mark.usefixtures("triggers_removed")
def test_database_without_triggers_is_not_guarded() -> None:
    assert not append_only.are_triggers_installed(connection)


@pytest.mark.parametrize("name", sorted(append_only.triggers(connection)))
@pytest.mark.usefixtures("triggers_removed")
def test_database_without_one_trigger_is_not_guarded(name: str) -> None:
    append_only.install_triggers(connection)
    table = append_only.triggers(connection)[name].table
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER {name}{f' ON {table}' if ON_POSTGRESQL else ''}")
    assert not append_only.are_triggers_installed(connection)


@pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite has no triggers that are switched off")
@pytest.mark.usefixtures("triggers_removed")
def test_database_with_disabled_trigger_is_not_guarded() -> None:
    append_only.install_triggers(connection)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE dashboard_abort DISABLE TRIGGER dashboard_abort_no_delete")
    assert not append_only.are_triggers_installed(connection)


@pytest.mark.usefixtures("triggers_removed")
def test_migrate_without_pending_migrations_restores_triggers() -> None:
    call_command("migrate", verbosity=0)
    assert append_only.are_triggers_installed(connection)


def test_flush_keeps_triggers(transactional_db: None) -> None:
    append_only.drop_triggers(connection)  # else PostgreSQL refuses to empty the tables
    call_command("flush", interactive=False, verbosity=0)
    assert append_only.are_triggers_installed(connection)


@pytest.mark.skipif(ON_POSTGRESQL, reason="on PostgreSQL nothing is changed at start")
@pytest.mark.usefixtures("triggers_removed")
def test_process_start_on_sqlite_restores_triggers() -> None:
    prepare()
    assert append_only.are_triggers_installed(connection)


@pytest.mark.skipif(not ON_POSTGRESQL, reason="on SQLite they are set")
@pytest.mark.usefixtures("triggers_removed")
def test_process_start_on_postgresql_without_triggers_fails() -> None:
    with pytest.raises(CommandError, match=r"run `manage.py migrate`"):
        prepare()


# --- Our own code --------------------------------------------------------------------------------

# Rows that may be deleted: the sync's bookkeeping, rights, whose changes are recorded, and what is
# older than the settings allow.
DELETED = {
    "accounts/changes.py": {"instance"},  # the sessions of an account
    "accounts/administration/group_changes.py": {"Group", "Grant"},
    "accounts/sessions.py": {"user", "others", "Session"},
    "accounts/stars.py": {"Star"},
    "accounts/authentication/throttle.py": {"FailureCounter"},
    "notices/round.py": {"EndRequest"},  # told
    "notices/rules.py": {"NoticeRule"},
    "notices/end_requests.py": {"requests"},
    "runs/saved_views.py": {"view", "DefaultView"},
    "server/backup.py": {"Session", "Lead"},
    # The run of an abort is protected by its foreign key, a young access event by a trigger.
    "sync/pruning.py": {
        "old_runs", "Acknowledgement", "Dismissal", "AccessEvent", "SearchText",
        "EndRequest", "Notice", "NoticeMessage", "old_rows",
    },
    "runs/search.py": {"SearchText"},
    "sync/requests.py": {"ReadRequest"},
    "web/pages/notices.py": {"rules"},  # the use case
    "web/pages/saved_views.py": {"saved_views"},  # the same
}  # fmt: skip


def deletions() -> Iterator[tuple[str, str]]:
    """Each call in our code that deletes rows: its file, and its target."""
    root = settings.BASE_DIR / "dashboard"
    for file in sorted(Path(root).rglob("*.py")):
        path = file.relative_to(root).as_posix()
        if path.startswith(("migrations/", "sandbox/")):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in {"delete", "_raw_delete"}:
                yield path, ast.unparse(node.func.value)


@pytest.mark.slow
def test_product_code_deletes_only_bookkeeping_rows() -> None:
    calls = [(path, target.partition(".")[0]) for path, target in deletions()]
    assert calls != []
    assert [call for call in calls if call[1] not in DELETED.get(call[0], set())] == []
