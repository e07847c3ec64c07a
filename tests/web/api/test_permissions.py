"""Users, places and grants: a token allows what its account may do, and nothing more."""

from typing import Any

import pytest
from django.contrib.auth.models import Group, User

from dashboard.models import Abort, Grant, Project, Run
from dashboard.models.accounts.api_tokens import Scope
from tests.support.api import CreateApiClient, abort, error_status_and_code
from tests.support.live import Live
from tests.support.live_runs import LEDGER, SEARCH, create_run_in_flight

# Whose token, of which scope -> at LEDGER (payments, Staging) and at SEARCH (shop, Production): "-"
# hidden, "s" seen, "a" may be aborted. The grants are those of `run_by_place` below, and no others.
PERMISSION_TABLE = [
    ("stranger", Scope.ABORT, "-", "-"),
    ("looker", Scope.ABORT, "s", "-"),
    ("ledgers", Scope.ABORT, "a", "-"),
    ("ledgers", Scope.READ, "s", "-"),
    ("ledgers", Scope.LOGS, "s", "-"),
    ("producers", Scope.ABORT, "-", "a"),
    ("producers", Scope.READ, "-", "s"),
    ("both", Scope.ABORT, "s", "a"),
    ("boss", Scope.ABORT, "a", "a"),
    ("boss", Scope.READ, "s", "s"),
]


@pytest.fixture
def run_by_place(live: Live) -> dict[str, Run]:
    """One run at each place; users, and the grants of their groups."""
    runs = {
        "ledger": create_run_in_flight(live, LEDGER),
        "search": create_run_in_flight(live, SEARCH),
    }
    Grant.objects.all().delete()
    payments = Project.objects.get(slug="payments")
    for group, fields in {
        "looker": {"project": payments, "action": "view"},
        "ledgers": {"project": payments, "stage": "Staging", "action": "abort"},
        "producers": {"stage": "Production", "action": "abort"},
    }.items():
        Grant.objects.create(group=Group.objects.create(name=group), **fields)
    for name in ("stranger", "looker", "ledgers", "producers", "both"):
        user = User.objects.create_user(name)
        groups = {"stranger": [], "both": ["looker", "producers"]}.get(name, [name])
        user.groups.set(Group.objects.filter(name__in=groups))
    User.objects.create_superuser("boss")
    return runs


@pytest.mark.parametrize(("username", "scope", "ledger", "search"), PERMISSION_TABLE)
def test_token_permissions_follow_account_and_scope(
    run_by_place: dict[str, Run],
    api_client: CreateApiClient,
    username: str,
    scope: Scope,
    ledger: str,
    search: str,
) -> None:
    http_client = api_client(User.objects.get(username=username), scope=scope)
    expected = {"ledger": ledger, "search": search}
    listed = {
        run["run_id"]: run["may_abort"] for run in http_client.get("/api/runs/").json()["runs"]
    }
    assert listed == {
        run_by_place[place].run_id: right == "a"
        for place, right in expected.items()
        if right != "-"
    }
    for place, right in expected.items():
        read_status = http_client.get(f"/api/runs/{run_by_place[place].run_id}/").status_code
        abort_status = abort(http_client, run_by_place[place]).status_code
        assert (read_status, abort_status) == {"-": (404, 404), "s": (200, 403), "a": (200, 200)}[
            right
        ], place
    aborted = set(Abort.objects.values_list("run", flat=True))
    assert aborted == {run_by_place[place].pk for place, right in expected.items() if right == "a"}


def test_hidden_run_response_equals_unknown_run_response(
    run_by_place: dict[str, Run], api_client: CreateApiClient
) -> None:
    http_client = api_client(User.objects.get(username="stranger"))
    hidden = run_by_place["ledger"].run_id
    body = http_client.get(f"/api/runs/{hidden}/").text.replace(hidden, "r-9")
    assert body == http_client.get("/api/runs/r-9/").text


def test_hidden_run_does_not_make_run_id_ambiguous(
    run_by_place: dict[str, Run], api_client: CreateApiClient
) -> None:
    Run.objects.filter(pk=run_by_place["search"].pk).update(run_id=run_by_place["ledger"].run_id)
    http_client = api_client(User.objects.get(username="looker"))
    assert (
        http_client.get(f"/api/runs/{run_by_place['ledger'].run_id}/").json()["project"]
        == "payments"
    )


def test_denied_abort_names_permitted_groups(
    run_by_place: dict[str, Run], api_client: CreateApiClient
) -> None:
    answer = abort(api_client(User.objects.get(username="looker")), run_by_place["ledger"])
    assert error_status_and_code(answer) == (403, "not_allowed")
    assert "“ledgers”" in answer.json()["error"]["message"]


def test_abort_with_read_token_returns_scope_message(
    run_by_place: dict[str, Run], api_client: CreateApiClient
) -> None:
    answer = abort(
        api_client(User.objects.get(username="boss"), scope=Scope.READ), run_by_place["ledger"]
    )
    assert answer.json()["error"]["message"] == "This API token is read-only."


def test_revoked_permission_applies_to_next_request(
    run_by_place: dict[str, Run], api_client: CreateApiClient
) -> None:
    http_client = api_client(User.objects.get(username="ledgers"))
    Grant.objects.all().delete()
    assert error_status_and_code(abort(http_client, run_by_place["ledger"])) == (404, "unknown_run")


@pytest.mark.parametrize(
    ("switch", "value", "reason"),
    [("READ_ONLY", True, "read-only"), ("ABORTS_ENABLED", False, "Aborts are disabled")],
)
def test_read_only_or_aborts_disabled_denies_superuser_token(
    run_by_place: dict[str, Run],
    api_client: CreateApiClient,
    settings: Any,
    switch: str,
    value: bool,
    reason: str,
) -> None:
    setattr(settings, switch, value)
    http_client = api_client(User.objects.get(username="boss"))
    answer = abort(http_client, run_by_place["ledger"])
    assert error_status_and_code(answer) == (403, "not_allowed")
    assert reason in answer.json()["error"]["message"]
    assert not any(run["may_abort"] for run in http_client.get("/api/runs/").json()["runs"])
    assert not Abort.objects.exists()
