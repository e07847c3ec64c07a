"""A run that Northflank knows no more stays in sight, and can be aborted, until it is dismissed."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard import aborts
from dashboard.aborts import Press
from dashboard.models import Dismissal, Looking, Run
from dashboard.models.api_tokens import Scope
from dashboard.runs import dismissals
from dashboard.sync import mirror
from tests.support import factories
from tests.support.api import secret_of
from tests.support.html import one, parsed, words
from tests.support.world import api_run


@pytest.fixture
def run(db: None) -> Run:
    """In flight, and gone from Northflank."""
    made = factories.run(factories.stage(), "lost", gone_at=timezone.now())
    return Run.objects.with_place().get(pk=made.pk)


def desk_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def say(user: User, run: Run, **form: str) -> Any:
    return desk_of(user).post(factories.address(run, "dismiss"), form, follow=True)


def shown(user: User, page: str) -> Any:
    return parsed(desk_of(user).get(page))


# --- in sight until then -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", ["/", "/projects/shop/pipelines/checkout/release-flows/production/"]
)
def test_it_stays_in_flight_and_is_marked(run: Run, manager: User, page: str) -> None:
    row = one(shown(manager, page), "#run-lost")
    assert words(one(row, ".gone")) == "gone from Northflank"
    assert row.css("[data-abort]") != []


def test_it_can_still_be_aborted(run: Run, manager: User) -> None:
    assert aborts.request(run, Press(manager, "Stuck")).made


def test_its_page_offers_to_dismiss_it(run: Run, manager: User, viewer: User) -> None:
    assert (
        words(one(shown(manager, factories.address(run)), "[data-dismissal] button")) == "Dismiss"
    )
    assert shown(viewer, factories.address(run)).css("[data-dismissal] button") == []


def test_a_run_that_northflank_knows_offers_nothing(manager: User, run: Run) -> None:
    Run.objects.update(gone_at=None)
    assert shown(manager, factories.address(run)).css("[data-dismissal]") == []


# --- dismissed, and undone -----------------------------------------------------------------------


def test_to_ask_does_nothing(run: Run, manager: User) -> None:
    page = shown(manager, factories.address(run, "dismiss"))
    assert words(one(page, "h1")) == "Dismiss “lost”?".replace("lost", run.title)
    assert not Dismissal.objects.exists()


def test_who_may_abort_dismisses_it_and_it_is_kept_who_did(run: Run, manager: User) -> None:
    page = parsed(say(manager, run))
    run.refresh_from_db()
    kept = Dismissal.objects.get()
    assert (run.in_flight, kept.run, kept.username, kept.undone_at) == (False, run, "manager", None)
    assert words(one(page, "[data-dismissal] p")).startswith("manager dismissed it, ")
    assert shown(manager, "/").css("#run-lost") == []


def test_who_may_not_abort_does_not(run: Run, viewer: User) -> None:
    assert say(viewer, run).status_code == 403
    assert Run.objects.get().in_flight


def test_it_is_undone(run: Run, manager: User) -> None:
    say(manager, run)
    page = parsed(say(manager, run, undo="1"))
    run.refresh_from_db()
    assert run.in_flight
    assert run.next_read_at is not None
    assert Dismissal.objects.get().undone_by == "manager"
    assert "manager put it back, " in words(one(page, "[data-dismissal] p"))
    assert words(one(page, "[data-dismissal] button")) == "Dismiss"


def test_who_is_signed_out_meanwhile_comes_back_to_the_run(run: Run, client: Client) -> None:
    answer = client.post(factories.address(run, "dismiss"))
    assert answer.status_code == 302
    assert answer.headers["location"].endswith(f"?next={factories.address(run)}")


def test_twice_is_once(run: Run, manager: User) -> None:
    for _ in range(2):
        dismissals.dismiss(run, manager)
    assert Dismissal.objects.count() == 1


def test_open_pages_hear_of_it(run: Run, manager: User) -> None:
    for act in (dismissals.dismiss, dismissals.undo):
        before = Run.objects.get().version
        act(run, manager)
        assert Run.objects.get().version > before


def test_looking_ends_with_it(run: Run, manager: User) -> None:
    Looking.objects.create(run=run, user=manager, username="manager", since=timezone.now())
    dismissals.dismiss(run, manager)
    assert not Looking.objects.open().exists()


@pytest.mark.parametrize("fields", [{"gone_at": None}, {"in_flight": False, "concluded": True}])
def test_only_what_is_gone_before_it_had_concluded_can_be(
    run: Run, manager: User, fields: dict[str, Any]
) -> None:
    Run.objects.update(**fields)
    with pytest.raises(dismissals.NothingToDismiss):
        dismissals.dismiss(run, manager)
    assert "nothing to dismiss" in words(parsed(say(manager, run)))


def test_one_that_northflank_knows_again_is_in_flight_again(run: Run, manager: User) -> None:
    dismissals.dismiss(run, manager)
    mirror.runs(run.stage_id, [api_run("lost")], asked_at=timezone.now())
    run.refresh_from_db()
    assert (run.in_flight, run.gone_at) == (True, None)
    kept = Dismissal.objects.get()
    assert (kept.undone_at is not None, kept.undone_by) == (True, "")


# --- by the API ----------------------------------------------------------------------------------


def ask(method: str, user: User, scope: Scope, path: str = "dismissal/") -> Any:
    headers = {"Authorization": f"Bearer {secret_of(user, scope, 'pager')}"}
    return Client().generic(method, f"/api/runs/lost/{path}", headers=headers)


def test_the_api_dismisses_it_and_undoes_that(run: Run, manager: User) -> None:
    assert ask("POST", manager, Scope.ABORT).json()["in_flight"] is False
    told = ask("GET", manager, Scope.ABORT, "").json()
    assert [one["by"] for one in told["dismissals"]] == ["manager"]
    assert told["gone_at"] is not None
    assert ask("DELETE", manager, Scope.ABORT).json()["in_flight"] is True


def test_by_a_token_that_may_only_read_nothing_is_dismissed(run: Run, manager: User) -> None:
    assert ask("POST", manager, Scope.READ).status_code == 403
    assert Run.objects.get().in_flight


def test_the_api_says_that_there_is_nothing_to_dismiss(run: Run, manager: User) -> None:
    Run.objects.update(gone_at=None)
    answer = ask("POST", manager, Scope.ABORT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_gone")
