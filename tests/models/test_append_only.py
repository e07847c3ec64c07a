"""The audit is append-only: the database refuses what our code has no way to do either."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.db.models import ProtectedError
from django.test import Client
from django.utils import timezone

from dashboard.management.commands.serve import prepare
from dashboard.models import Abort, AbortBatch, BatchItem, Project, append_only
from dashboard.models.aborts import AbortState, What
from dashboard.models.bulk_aborts import ItemResult
from tests.support import factories

ON_POSTGRESQL = connection.vendor == "postgresql"

ASKED_FOR: dict[str, Any] = {
    "id": 7_000_000,
    "run_id": 7_000_000,
    "username": "somebody else",
    "reason": "A better one",
    "client_address": "192.0.2.9",
    "via": "api",
    "token_name": "another",
    "requested_at": timezone.now(),
    "retry_of_id": 7_000_000,
    "batch_id": 7_000_000,
    "begun_at": timezone.now(),
}
STANDING: dict[str, Any] = {
    "state": "refused",
    "claimed_at": timezone.now(),
    "sent_at": timezone.now(),
    "sendings": 7,
    "answered_at": timezone.now(),
    "answer": "Something else.",
    "answer_status": 418,
    "error_id": "x",
    "retry_at": timezone.now(),
    "outcome": "success",
    "settled_at": timezone.now(),
}

LIST_ASKED_FOR = {
    name: value
    for name, value in ASKED_FOR.items()
    if name not in {"run_id", "retry_of_id", "batch_id", "begun_at"}
} | {"key": uuid4().hex}
ITEM_ASKED_FOR = dict.fromkeys(("id", "batch_id", "position", "run_id"), 7_000_000)
ITEM_RESULT = {"result": "ended", "abort_id": None, "note": "Something else."}


@pytest.fixture
def act(manager: User) -> Abort:
    """An act that is under way, with a line in its trail."""
    abort = factories.abort(factories.run(factories.stage()), manager, reason="Stuck")
    abort.note(What.REQUESTED, timezone.now())
    return abort


@pytest.fixture
def settled(act: Abort) -> Abort:
    assert act.move(
        AbortState.CONCLUDED, What.CONCLUDED, timezone.now(),
        outcome="aborted", settled_at=timezone.now(),
    )  # fmt: skip
    return act


@pytest.fixture
def batch(manager: User) -> AbortBatch:
    """A list of two runs: one had ended, the other waits for its turn."""
    now = timezone.now()
    made = AbortBatch.objects.create(
        key=uuid4(), user=manager, username="manager", reason="Stuck", requested_at=now,
        claimed_at=now,
    )  # fmt: skip
    for position, result in enumerate((ItemResult.ENDED, ItemResult.WAITING), start=1):
        run = factories.run(factories.stage())
        BatchItem.objects.create(batch=made, position=position, run=run, result=result)
    return made


def rows(table: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table} ORDER BY id")
        return list(cursor.fetchall())


def refused(statement: str, *values: Any) -> None:
    """The database refuses a statement, and nothing has changed."""
    before = [rows(table) for table in append_only.TABLES]
    with (
        pytest.raises(DatabaseError, match="never"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement, values)
    assert [rows(table) for table in append_only.TABLES] == before


# --- What is refused -----------------------------------------------------------------------------


def test_each_column_of_an_act_is_guarded_by_some_rule() -> None:
    columns = {field.column for field in Abort._meta.concrete_fields}
    assert columns == {*ASKED_FOR, *STANDING, "user_id"}


@pytest.mark.parametrize("column", ASKED_FOR)
def test_what_was_asked_for_is_not_changed_by_hand(column: str, act: Abort) -> None:
    refused(f"UPDATE dashboard_abort SET {column} = %s", ASKED_FOR[column])


@pytest.mark.parametrize("column", ASKED_FOR)
def test_not_even_to_what_it_is(column: str, act: Abort) -> None:
    refused(f"UPDATE dashboard_abort SET {column} = {column}")


@pytest.mark.parametrize("column", [column for column in ASKED_FOR if column != "id"])
def test_what_was_asked_for_is_not_changed_by_the_orm(column: str, act: Abort) -> None:
    with pytest.raises(DatabaseError, match="never"), transaction.atomic():
        Abort.objects.filter(pk=act.pk).update(**{column: ASKED_FOR[column]})


def test_an_act_that_was_loaded_cannot_be_saved(act: Abort) -> None:
    act.reason = "A better one"
    with pytest.raises(DatabaseError, match="never"), transaction.atomic():
        act.save()


@pytest.mark.parametrize("column", STANDING)
def test_an_act_that_has_settled_is_not_changed_by_hand(column: str, settled: Abort) -> None:
    refused(f"UPDATE dashboard_abort SET {column} = %s", STANDING[column])


@pytest.mark.parametrize("column", STANDING)
def test_an_act_that_has_settled_is_not_changed_by_the_orm(column: str, settled: Abort) -> None:
    with pytest.raises(DatabaseError, match="never"), transaction.atomic():
        Abort.objects.filter(pk=settled.pk).update(**{column: STANDING[column]})


def test_an_act_that_has_settled_is_not_opened_again(settled: Abort) -> None:
    refused("UPDATE dashboard_abort SET settled_at = NULL, state = 'requested'")


def test_an_act_is_given_to_nobody_else(act: Abort, viewer: User) -> None:
    refused("UPDATE dashboard_abort SET user_id = %s", viewer.pk)


def test_an_act_is_not_deleted_by_hand(act: Abort) -> None:
    refused("DELETE FROM dashboard_abort")


def test_an_act_without_a_trail_is_not_deleted_by_hand(manager: User) -> None:
    factories.abort(factories.run(factories.stage()), manager)
    refused("DELETE FROM dashboard_abort")


def test_an_act_is_not_deleted_by_the_orm(act: Abort) -> None:
    with pytest.raises(ProtectedError):
        act.delete()
    with pytest.raises(DatabaseError, match="never"), transaction.atomic():
        Abort.objects.all()._raw_delete(connection.alias)
    assert Abort.objects.count() == 1


def test_a_line_of_a_trail_is_not_deleted_by_hand(act: Abort) -> None:
    refused("DELETE FROM dashboard_abortevent")


def test_a_line_of_a_trail_is_not_deleted_by_the_orm(act: Abort) -> None:
    with pytest.raises(DatabaseError, match="never"), transaction.atomic():
        act.events.all().delete()
    assert act.events.count() == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", 7_000_000),
        ("abort_id", 7_000_000),
        ("what", "sent"),
        ("at", timezone.now()),
        ("detail", "x"),
    ],
)
def test_a_line_of_a_trail_is_not_changed_by_hand(column: str, value: Any, act: Abort) -> None:
    refused(f"UPDATE dashboard_abortevent SET {column} = %s", value)


def test_a_line_of_a_trail_is_not_changed_by_the_orm(act: Abort) -> None:
    line = act.events.get()
    line.detail = "x"
    with pytest.raises(DatabaseError, match="never"), transaction.atomic():
        line.save()
    with pytest.raises(DatabaseError, match="never"), transaction.atomic():
        act.events.update(detail="x")


def test_each_column_of_a_list_is_guarded_by_some_rule() -> None:
    columns = {field.column for field in AbortBatch._meta.concrete_fields}
    assert columns == {*LIST_ASKED_FOR, "user_id", "claimed_at", "settled_at"}
    columns = {field.column for field in BatchItem._meta.concrete_fields}
    assert columns == {*ITEM_ASKED_FOR, *ITEM_RESULT}


@pytest.mark.parametrize("column", LIST_ASKED_FOR)
def test_what_was_asked_for_of_many_is_not_changed(column: str, batch: AbortBatch) -> None:
    refused(f"UPDATE dashboard_abortbatch SET {column} = %s", LIST_ASKED_FOR[column])


def test_a_list_is_given_to_nobody_else(batch: AbortBatch, viewer: User) -> None:
    refused("UPDATE dashboard_abortbatch SET user_id = %s", viewer.pk)


def test_a_list_that_was_worked_through_is_not_opened_again(batch: AbortBatch) -> None:
    AbortBatch.objects.update(settled_at=timezone.now())
    refused("UPDATE dashboard_abortbatch SET settled_at = NULL")


def test_a_list_is_not_deleted(manager: User) -> None:
    now = timezone.now()
    AbortBatch.objects.create(key=uuid4(), username="manager", requested_at=now, claimed_at=now)
    refused("DELETE FROM dashboard_abortbatch")


def test_a_run_is_not_taken_off_its_list(batch: AbortBatch) -> None:
    refused("DELETE FROM dashboard_batchitem")
    with pytest.raises(DatabaseError, match="never"), transaction.atomic():
        batch.items.all().delete()
    assert batch.items.count() == 2


@pytest.mark.parametrize("column", ITEM_ASKED_FOR)
def test_a_list_stays_what_was_confirmed(column: str, batch: AbortBatch) -> None:
    refused(f"UPDATE dashboard_batchitem SET {column} = %s", ITEM_ASKED_FOR[column])


@pytest.mark.parametrize("column", ITEM_RESULT)
def test_what_became_of_a_run_of_a_list_is_not_changed(column: str, batch: AbortBatch) -> None:
    refused(
        f"UPDATE dashboard_batchitem SET {column} = %s WHERE result <> 'waiting'",
        ITEM_RESULT[column],
    )


@pytest.mark.skipif(ON_POSTGRESQL, reason="PostgreSQL gives a key one name")
@pytest.mark.parametrize("name", ["rowid", "oid", "_rowid_"])
@pytest.mark.parametrize("table", append_only.TABLES)
def test_no_key_is_changed_by_another_of_its_names(
    table: str, name: str, act: Abort, batch: AbortBatch
) -> None:
    refused(f"UPDATE {table} SET {name} = 99 WHERE id = (SELECT MIN(id) FROM {table})")


@pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite knows no TRUNCATE")
@pytest.mark.parametrize("table", [*append_only.TABLES, "dashboard_run"])
def test_no_table_of_the_audit_is_emptied(table: str, act: Abort) -> None:
    connection.check_constraints()  # PostgreSQL's own would be in the way otherwise
    refused(f"TRUNCATE {table} CASCADE")


@pytest.mark.skipif(ON_POSTGRESQL, reason="PostgreSQL knows no REPLACE")
@pytest.mark.parametrize("table", append_only.TABLES)
def test_nothing_is_replaced_by_its_key(table: str, act: Abort, batch: AbortBatch) -> None:
    refused(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")


@pytest.mark.skipif(ON_POSTGRESQL, reason="PostgreSQL knows no REPLACE")
def test_an_open_act_is_not_replaced_by_another_of_its_run(act: Abort) -> None:
    names = [name for name in _columns() if name != "id"]
    listed = ", ".join(names)
    refused(
        f"INSERT OR REPLACE INTO dashboard_abort ({listed}) SELECT {listed} FROM dashboard_abort"
    )


@pytest.mark.skipif(ON_POSTGRESQL, reason="PostgreSQL knows no REPLACE")
@pytest.mark.parametrize("table", ["dashboard_abortbatch", "dashboard_batchitem"])
def test_no_part_of_a_list_is_replaced_by_what_else_is_unique(
    table: str, batch: AbortBatch
) -> None:
    listed = ", ".join(name for name in _columns(table) if name != "id")
    refused(f"INSERT OR REPLACE INTO {table} ({listed}) SELECT {listed} FROM {table}")


@pytest.mark.skipif(ON_POSTGRESQL, reason="PostgreSQL knows no REPLACE")
def test_an_act_that_was_tried_again_keeps_what_tried_it(settled: Abort, manager: User) -> None:
    second = factories.abort(settled.run, manager, retry_of=settled)
    run = factories.run(settled.run.stage)
    values = ", ".join({"id": "NULL", "run_id": str(run.pk)}.get(name, name) for name in _columns())
    refused(
        f"INSERT OR REPLACE INTO dashboard_abort SELECT {values} FROM dashboard_abort"
        f" WHERE id = {second.pk}"
    )


def _columns(of: str = "dashboard_abort") -> list[str]:
    with connection.cursor() as cursor:
        table = connection.introspection.get_table_description(cursor, of)
        return [column.name for column in table]


def test_a_project_with_an_act_is_not_deleted(act: Abort) -> None:
    with pytest.raises(ProtectedError):
        Project.objects.get().delete()
    assert Abort.objects.get().run.stage.pipeline.project.slug == "shop"


# --- What stays allowed --------------------------------------------------------------------------


def test_an_open_act_moves_on(act: Abort) -> None:
    assert act.move(
        AbortState.CONCLUDED, What.CONCLUDED, timezone.now(),
        outcome="aborted", settled_at=timezone.now(),
    )  # fmt: skip
    assert Abort.objects.get().outcome == "aborted"


def test_a_list_is_worked_through(batch: AbortBatch) -> None:
    batch.items.filter(result=ItemResult.WAITING).update(result=ItemResult.ENDED, note="So.")
    AbortBatch.objects.update(claimed_at=timezone.now())
    AbortBatch.objects.update(settled_at=timezone.now())
    assert set(batch.items.values_list("result", flat=True)) == {"ended"}


def test_a_deleted_account_leaves_its_name_on_a_list(batch: AbortBatch, manager: User) -> None:
    manager.delete()
    batch.refresh_from_db()
    assert (batch.user_id, batch.username) == (None, "manager")


def test_a_trail_grows_even_after_the_act_has_settled(settled: Abort) -> None:
    settled.note(What.TURNED, timezone.now(), detail="success")
    assert settled.events.count() == 3


def test_a_deleted_account_leaves_its_name(settled: Abort, manager: User) -> None:
    manager.delete()
    settled.refresh_from_db()
    assert (settled.user_id, settled.username) == (None, "manager")


def test_a_run_has_another_act_once_the_first_has_settled(settled: Abort, manager: User) -> None:
    factories.abort(settled.run, manager, retry_of=settled)
    assert Abort.objects.count() == 2


# --- The triggers come back ----------------------------------------------------------------------


@pytest.fixture
def lifted(transactional_db: None) -> Iterator[None]:
    """The triggers are gone, as after a migration that broke off."""
    append_only.lift(connection)
    yield
    append_only.guard(connection)


def test_a_migrated_database_is_guarded(db: None) -> None:
    assert append_only.is_guarded(connection)


@pytest.mark.usefixtures("lifted")
def test_without_its_triggers_it_is_not() -> None:
    assert not append_only.is_guarded(connection)


@pytest.mark.parametrize("name", sorted(append_only.rules(connection)))
@pytest.mark.usefixtures("lifted")
def test_nor_without_a_single_one(name: str) -> None:
    append_only.guard(connection)
    table = append_only.rules(connection)[name][0]
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER {name}{f' ON {table}' if ON_POSTGRESQL else ''}")
    assert not append_only.is_guarded(connection)


@pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite has no triggers that are switched off")
@pytest.mark.usefixtures("lifted")
def test_nor_where_one_is_switched_off() -> None:
    append_only.guard(connection)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE dashboard_abort DISABLE TRIGGER abort_is_kept")
    assert not append_only.is_guarded(connection)


@pytest.mark.usefixtures("lifted")
def test_migrating_sets_them_even_where_there_is_nothing_to_migrate() -> None:
    call_command("migrate", verbosity=0)
    assert append_only.is_guarded(connection)


def test_a_flush_leaves_them_set(transactional_db: None) -> None:
    append_only.lift(connection)  # else PostgreSQL refuses to empty the tables
    call_command("flush", interactive=False, verbosity=0)
    assert append_only.is_guarded(connection)


@pytest.mark.skipif(ON_POSTGRESQL, reason="on PostgreSQL nothing is changed at start")
@pytest.mark.usefixtures("lifted")
def test_a_process_that_starts_sets_them_on_sqlite() -> None:
    prepare()
    assert append_only.is_guarded(connection)


@pytest.mark.skipif(not ON_POSTGRESQL, reason="on SQLite they are set")
@pytest.mark.usefixtures("lifted")
def test_a_process_does_not_start_without_them_on_postgresql() -> None:
    with pytest.raises(CommandError, match=r"run `manage.py migrate`"):
        prepare()


# --- No way in our own code ----------------------------------------------------------------------

# What may be deleted: rows of the sync's bookkeeping.
DELETED = {
    "runs/saved_views.py": {"view", "DefaultView"},
    "sync/webhook_events.py": {"PushEvent"},
    "sync/run_lookup.py": {"RunLookup"},
    "sync/worker.py": {"Worker"},
    "web/pages/saved_views.py": {"saved_views"},  # the use case
}


def deletions() -> Iterator[tuple[str, str]]:
    """Each call in our code that deletes rows: in which file, and on what."""
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


def test_our_code_deletes_bookkeeping_only() -> None:
    found = [(path, of.partition(".")[0]) for path, of in deletions()]
    assert found != []
    assert [each for each in found if each[1] not in DELETED.get(each[0], set())] == []


@pytest.fixture
def root(client: Client, db: None) -> Client:
    """The browser of somebody whom the admin refuses nothing that it has."""
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client


def test_the_admin_shows_acts(root: Client, act: Abort) -> None:
    assert root.get(f"/admin/dashboard/abort/{act.pk}/change/").status_code == 200


@pytest.mark.parametrize("page", ["add/", "{pk}/delete/"])
def test_the_admin_neither_adds_nor_deletes_acts(page: str, root: Client, act: Abort) -> None:
    address = f"/admin/dashboard/abort/{page.format(pk=act.pk)}"
    assert root.get(address).status_code == 403
    assert root.post(address, {"post": "yes"}).status_code == 403
    assert Abort.objects.count() == 1


def test_the_admin_changes_no_act(root: Client, act: Abort) -> None:
    answer = root.post(f"/admin/dashboard/abort/{act.pk}/change/", {"reason": "A better one"})
    assert answer.status_code == 403
    assert Abort.objects.get().reason == "Stuck"


def test_the_admin_deletes_no_acts_by_the_list_either(root: Client, act: Abort) -> None:
    root.post(
        "/admin/dashboard/abort/",
        {"action": "delete_selected", "_selected_action": act.pk, "post": "yes"},
    )
    assert Abort.objects.count() == 1


@pytest.mark.parametrize("page", ["", "add/", "{pk}/change/", "{pk}/delete/"])
def test_the_admin_knows_no_lines_of_trails(page: str, root: Client, act: Abort) -> None:
    line = act.events.get()
    answer = root.get(f"/admin/dashboard/abortevent/{page.format(pk=line.pk)}")
    assert answer.status_code in {404, 302}
    assert answer.status_code == 404 or answer["Location"] == "/admin/"


def test_deleting_an_account_in_the_admin_leaves_its_acts(
    root: Client, act: Abort, manager: User
) -> None:
    root.post(f"/admin/auth/user/{manager.pk}/delete/", {"post": "yes"})
    assert not User.objects.filter(pk=manager.pk).exists()
    assert Abort.objects.get().username == "manager"
