"""Removed runs stay visible, and can be aborted, until they are dismissed."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.aborts.request import AbortRequest, request_abort
from dashboard.models import Acknowledgement, Dismissal, Run
from dashboard.models.accounts.api_tokens import Scope
from dashboard.runs import dismissals
from dashboard.sync import mirror
from tests.support import factories
from tests.support.api import create_token_secret
from tests.support.html import parse_html, select_one, text_of
from tests.support.world import api_run


@pytest.fixture
def run(db: None) -> Run:
    """In flight, and removed from Northflank."""
    created = factories.run(factories.stage(), "lost", removed_at=timezone.now())
    return Run.objects.with_stage().get(pk=created.pk)


def client_for(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def post_dismissal(user: User, run: Run, **form: str) -> Any:
    return client_for(user).post(factories.address(run, "dismiss"), form, follow=True)


def get_page_as(user: User, page: str) -> Any:
    return parse_html(client_for(user).get(page))


# --- listed until dismissed ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", ["/", "/projects/shop/pipelines/checkout/release-flows/production/"]
)
def test_removed_run_in_flight_stays_listed_and_marked(run: Run, manager: User, page: str) -> None:
    row = select_one(get_page_as(manager, page), "#run-lost")
    assert text_of(select_one(row, ".removed")) == "removed from Northflank"
    assert row.css("[data-abort]") != []


def test_removed_run_in_flight_can_be_aborted(run: Run, manager: User) -> None:
    assert request_abort(run, AbortRequest(manager, "Stuck")).is_new


def test_removed_run_page_offers_dismissal_to_manager_only(
    run: Run, manager: User, viewer: User
) -> None:
    assert (
        text_of(select_one(get_page_as(manager, factories.address(run)), "[data-dismissal] button"))
        == "Remove from list"
    )
    assert get_page_as(viewer, factories.address(run)).css("[data-dismissal] button") == []


def test_run_not_removed_offers_no_dismissal(manager: User, run: Run) -> None:
    Run.objects.update(removed_at=None)
    assert get_page_as(manager, factories.address(run)).css("[data-dismissal]") == []


# --- dismissed, and restored ---------------------------------------------------------------------


def test_dismiss_by_manager_ends_run_and_records_user(run: Run, manager: User) -> None:
    page = parse_html(post_dismissal(manager, run))
    run.refresh_from_db()
    dismissal = Dismissal.objects.get()
    assert (run.in_flight, dismissal.run, dismissal.username, dismissal.restored_at) == (
        False,
        run,
        "manager",
        None,
    )
    assert text_of(select_one(page, "[data-dismissal] p")).startswith(
        "Removed from the list by manager, "
    )
    assert get_page_as(manager, "/").css("#run-lost") == []


def test_restore_puts_run_back_in_flight_and_records_user(run: Run, manager: User) -> None:
    post_dismissal(manager, run)
    page = parse_html(post_dismissal(manager, run, undo="1"))
    run.refresh_from_db()
    assert run.in_flight
    assert run.next_detail_sync_at is not None
    assert Dismissal.objects.get().restored_by == "manager"
    assert "restored by manager, " in text_of(select_one(page, "[data-dismissal] p"))
    assert text_of(select_one(page, "[data-dismissal] button")) == "Remove from list"


def _leave(_run: Run) -> None:
    pass


def _end(run: Run) -> None:
    end = {"status": "success", "concluded": True, "concluded_at": timezone.now()}
    mirror.apply_runs(run.stage_id, [api_run("lost", **end)], requested_at=timezone.now())


@pytest.mark.parametrize(
    ("is_dismissed", "change", "tone", "notice"),
    [
        (True, _leave, "good", "Restored: in flight again."),
        (True, _end, "info", "Nothing to restore: the run was not removed from the list."),
        (False, _leave, "info", "Nothing to restore: the run was not removed from the list."),
    ],
    ids=["dismissed", "ended meanwhile", "never dismissed"],
)
def test_notice_says_whether_the_run_was_restored(
    run: Run,
    manager: User,
    is_dismissed: bool,
    change: Callable[[Run], None],
    tone: str,
    notice: str,
) -> None:
    if is_dismissed:
        dismissals.dismiss(run, manager)
    change(run)
    notices = select_one(parse_html(post_dismissal(manager, run, undo="1")), "#notices")
    shown = select_one(notices, "[data-tone]")
    assert (shown.attributes["data-tone"], notice in text_of(shown)) == (tone, True)


def test_dismiss_twice_records_one_dismissal(run: Run, manager: User) -> None:
    for _ in range(2):
        dismissals.dismiss(run, manager)
    assert Dismissal.objects.count() == 1


def test_dismiss_ends_acknowledgements(run: Run, manager: User) -> None:
    Acknowledgement.objects.create(
        run=run, user=manager, username="manager", acknowledged_at=timezone.now()
    )
    dismissals.dismiss(run, manager)
    assert not Acknowledgement.objects.open().exists()


@pytest.mark.parametrize("fields", [{"removed_at": None}, {"in_flight": False, "concluded": True}])
def test_dismiss_of_run_not_removed_or_concluded_is_rejected(
    run: Run, manager: User, fields: dict[str, Any]
) -> None:
    Run.objects.update(**fields)
    with pytest.raises(dismissals.NothingToDismiss):
        dismissals.dismiss(run, manager)
    assert "Nothing to remove" in text_of(parse_html(post_dismissal(manager, run)))


def test_dismissed_run_listed_again_is_restored(run: Run, manager: User) -> None:
    dismissals.dismiss(run, manager)
    mirror.apply_runs(run.stage_id, [api_run("lost")], requested_at=timezone.now())
    run.refresh_from_db()
    assert (run.in_flight, run.removed_at) == (True, None)
    dismissal = Dismissal.objects.get()
    assert (dismissal.restored_at is not None, dismissal.restored_by) == (True, "")


# --- by the API ----------------------------------------------------------------------------------


def call_api(method: str, user: User, scope: Scope, path: str = "dismissal/") -> Any:
    headers = {"Authorization": f"Bearer {create_token_secret(user, scope, 'pager')}"}
    return Client().generic(method, f"/api/runs/lost/{path}", headers=headers)


def test_api_dismisses_and_restores_run(run: Run, manager: User) -> None:
    assert call_api("POST", manager, Scope.ABORT).json()["in_flight"] is False
    body = call_api("GET", manager, Scope.ABORT, "").json()
    assert [dismissal["username"] for dismissal in body["dismissals"]] == ["manager"]
    assert body["removed_at"] is not None
    assert call_api("DELETE", manager, Scope.ABORT).json()["in_flight"] is True


def test_api_restore_of_run_not_dismissed_changes_nothing(run: Run, manager: User) -> None:
    version = run.version
    answer = call_api("DELETE", manager, Scope.ABORT)
    assert (answer.status_code, answer.json()["in_flight"]) == (200, True)
    assert Run.objects.get().version == version


def test_api_dismiss_with_read_token_returns_403(run: Run, manager: User) -> None:
    assert call_api("POST", manager, Scope.READ).status_code == 403
    assert Run.objects.get().in_flight


def test_api_dismiss_of_run_not_removed_returns_409(run: Run, manager: User) -> None:
    Run.objects.update(removed_at=None)
    answer = call_api("POST", manager, Scope.ABORT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_removed")
