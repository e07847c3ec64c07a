"""People x places x rights: a token opens what its account may, and no more."""

from typing import Any

import pytest
from django.contrib.auth.models import Group, User

from dashboard.models import Abort, Grant, Project, Run
from dashboard.models.api_tokens import Scope
from tests.support.api import Machine, abort, failed
from tests.support.flights import LEDGER, SEARCH, in_flight
from tests.support.live import Live

# Whose token, of which scope -> at LEDGER (payments, Staging) and at SEARCH (shop, Production): "-"
# hidden, "s" seen, "a" may be aborted. Granted is what `places` says below, and nothing else.
TABLE = [
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
def places(live: Live) -> dict[str, Run]:
    """One run at each place; people, and what their groups were granted."""
    runs = {"ledger": in_flight(live, LEDGER), "search": in_flight(live, SEARCH)}
    Grant.objects.all().delete()
    payments = Project.objects.get(slug="payments")
    for group, granted in {
        "looker": {"project": payments, "right": "see"},
        "ledgers": {"project": payments, "stage": "Staging", "right": "abort"},
        "producers": {"stage": "Production", "right": "abort"},
    }.items():
        Grant.objects.create(group=Group.objects.create(name=group), **granted)
    for name in ("stranger", "looker", "ledgers", "producers", "both"):
        user = User.objects.create_user(name)
        groups = {"stranger": [], "both": ["looker", "producers"]}.get(name, [name])
        user.groups.set(Group.objects.filter(name__in=groups))
    User.objects.create_superuser("boss")
    return runs


@pytest.mark.parametrize(("who", "scope", "ledger", "search"), TABLE)
def test_a_token_sees_and_aborts_what_its_account_may(
    places: dict[str, Run], machine: Machine, who: str, scope: Scope, ledger: str, search: str
) -> None:
    one = machine(User.objects.get(username=who), scope=scope)
    expected = {"ledger": ledger, "search": search}
    listed = {run["run_id"]: run["may_abort"] for run in one.get("/api/runs/").json()["runs"]}
    assert listed == {
        places[at].run_id: right == "a" for at, right in expected.items() if right != "-"
    }
    for at, right in expected.items():
        seen = one.get(f"/api/runs/{places[at].run_id}/").status_code
        done = abort(one, places[at]).status_code
        assert (seen, done) == {"-": (404, 404), "s": (200, 403), "a": (200, 200)}[right], at
    aborted = set(Abort.objects.values_list("run", flat=True))
    assert aborted == {places[at].pk for at, right in expected.items() if right == "a"}


def test_what_is_hidden_is_told_like_what_is_unknown(
    places: dict[str, Run], machine: Machine
) -> None:
    one = machine(User.objects.get(username="stranger"))
    hidden = places["ledger"].run_id
    said = one.get(f"/api/runs/{hidden}/").text.replace(hidden, "r-9")
    assert said == one.get("/api/runs/r-9/").text


def test_a_hidden_place_does_not_make_an_id_ambiguous(
    places: dict[str, Run], machine: Machine
) -> None:
    Run.objects.filter(pk=places["search"].pk).update(run_id=places["ledger"].run_id)
    one = machine(User.objects.get(username="looker"))
    assert one.get(f"/api/runs/{places['ledger'].run_id}/").json()["project"] == "payments"


def test_whoever_may_not_is_told_who_can(places: dict[str, Run], machine: Machine) -> None:
    answer = abort(machine(User.objects.get(username="looker")), places["ledger"])
    assert failed(answer) == (403, "not_allowed")
    assert "“ledgers”" in answer.json()["error"]["message"]


def test_a_reading_token_is_told_that_it_is_one(places: dict[str, Run], machine: Machine) -> None:
    answer = abort(machine(User.objects.get(username="boss"), scope=Scope.READ), places["ledger"])
    assert answer.json()["error"]["message"] == "This token is for reading only."


def test_a_right_that_is_taken_away_is_gone_with_the_next_request(
    places: dict[str, Run], machine: Machine
) -> None:
    one = machine(User.objects.get(username="ledgers"))
    Grant.objects.all().delete()
    assert failed(abort(one, places["ledger"])) == (404, "unknown_run")


@pytest.mark.parametrize(
    ("switch", "value", "why"),
    [("READ_ONLY", True, "read-only"), ("ABORTS_ENABLED", False, "Aborting is switched off")],
)
def test_a_switch_stops_even_an_administrators_token(
    places: dict[str, Run], machine: Machine, settings: Any, switch: str, value: bool, why: str
) -> None:
    setattr(settings, switch, value)
    one = machine(User.objects.get(username="boss"))
    answer = abort(one, places["ledger"])
    assert failed(answer) == (403, "not_allowed")
    assert why in answer.json()["error"]["message"]
    assert not any(run["may_abort"] for run in one.get("/api/runs/").json()["runs"])
    assert not Abort.objects.exists()
