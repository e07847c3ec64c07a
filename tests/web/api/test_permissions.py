"""Users, places and grants: a token allows what its account may do, and nothing more."""

from typing import Any

import pytest
from django.contrib.auth.models import Group, User

from dashboard.models import Abort, Grant, Project, Run
from dashboard.models.api_tokens import Scope
from tests.support.api import CreateApiClient, abort, failed
from tests.support.live import Live
from tests.support.live_runs import LEDGER, SEARCH, in_flight

# Whose token, of which scope -> at LEDGER (payments, Staging) and at SEARCH (shop, Production): "-"
# hidden, "s" seen, "a" may be aborted. Granted is what `places` says below, and nothing else.
PERMISSION_TABLE = [
    ("stranger", Scope.ABORT, "-", "-"),
    ("looker", Scope.ABORT, "s", "-"),
    ("ledgers", Scope.ABORT, "a", "-"),
    ("ledgers", Scope.READ, "s", "-"),
    ("producers", Scope.ABORT, "-", "a"),
    ("producers", Scope.READ, "-", "s"),
    ("both", Scope.ABORT, "s", "a"),
    ("boss", Scope.ABORT, "a", "a"),
    ("boss", Scope.READ, "s", "s"),
]


@pytest.fixture
def run_by_place(live: Live) -> dict[str, Run]:
    """One run at each place; people, and what their groups were granted."""
    runs = {"ledger": in_flight(live, LEDGER), "search": in_flight(live, SEARCH)}
    Grant.objects.all().delete()
    payments = Project.objects.get(slug="payments")
    for group, granted in {
        "looker": {"project": payments, "action": "view"},
        "ledgers": {"project": payments, "stage": "Staging", "action": "abort"},
        "producers": {"stage": "Production", "action": "abort"},
    }.items():
        Grant.objects.create(group=Group.objects.create(name=group), **granted)
    for name in ("stranger", "looker", "ledgers", "producers", "both"):
        user = User.objects.create_user(name)
        groups = {"stranger": [], "both": ["looker", "producers"]}.get(name, [name])
        user.groups.set(Group.objects.filter(name__in=groups))
    User.objects.create_superuser("boss")
    return runs


@pytest.mark.parametrize(("who", "scope", "ledger", "search"), PERMISSION_TABLE)
def test_token_permissions_follow_account_and_scope(
    run_by_place: dict[str, Run],
    api_client: CreateApiClient,
    who: str,
    scope: Scope,
    ledger: str,
    search: str,
) -> None:
    one = api_client(User.objects.get(username=who), scope=scope)
    expected = {"ledger": ledger, "search": search}
    listed = {run["run_id"]: run["may_abort"] for run in one.get("/api/runs/").json()["runs"]}
    assert listed == {
        run_by_place[at].run_id: right == "a" for at, right in expected.items() if right != "-"
    }
    for at, right in expected.items():
        seen = one.get(f"/api/runs/{run_by_place[at].run_id}/").status_code
        done = abort(one, run_by_place[at]).status_code
        assert (seen, done) == {"-": (404, 404), "s": (200, 403), "a": (200, 200)}[right], at
    aborted = set(Abort.objects.values_list("run", flat=True))
    assert aborted == {run_by_place[at].pk for at, right in expected.items() if right == "a"}


def test_hidden_run_response_equals_unknown_run_response(
    run_by_place: dict[str, Run], api_client: CreateApiClient
) -> None:
    one = api_client(User.objects.get(username="stranger"))
    hidden = run_by_place["ledger"].run_id
    said = one.get(f"/api/runs/{hidden}/").text.replace(hidden, "r-9")
    assert said == one.get("/api/runs/r-9/").text


def test_hidden_run_does_not_make_run_id_ambiguous(
    run_by_place: dict[str, Run], api_client: CreateApiClient
) -> None:
    Run.objects.filter(pk=run_by_place["search"].pk).update(run_id=run_by_place["ledger"].run_id)
    one = api_client(User.objects.get(username="looker"))
    assert one.get(f"/api/runs/{run_by_place['ledger'].run_id}/").json()["project"] == "payments"


def test_denied_abort_names_permitted_groups(
    run_by_place: dict[str, Run], api_client: CreateApiClient
) -> None:
    answer = abort(api_client(User.objects.get(username="looker")), run_by_place["ledger"])
    assert failed(answer) == (403, "not_allowed")
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
    one = api_client(User.objects.get(username="ledgers"))
    Grant.objects.all().delete()
    assert failed(abort(one, run_by_place["ledger"])) == (404, "unknown_run")


@pytest.mark.parametrize(
    ("switch", "value", "why"),
    [("READ_ONLY", True, "read-only"), ("ABORTS_ENABLED", False, "Aborts are disabled")],
)
def test_read_only_or_aborts_disabled_denies_superuser_token(
    run_by_place: dict[str, Run],
    api_client: CreateApiClient,
    settings: Any,
    switch: str,
    value: bool,
    why: str,
) -> None:
    setattr(settings, switch, value)
    one = api_client(User.objects.get(username="boss"))
    answer = abort(one, run_by_place["ledger"])
    assert failed(answer) == (403, "not_allowed")
    assert why in answer.json()["error"]["message"]
    assert not any(run["may_abort"] for run in one.get("/api/runs/").json()["runs"])
    assert not Abort.objects.exists()
