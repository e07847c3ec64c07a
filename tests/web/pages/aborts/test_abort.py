"""Abort pages: GET only asks for confirmation, POST aborts and shows Northflank's response."""

import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser

from dashboard.asgi import application
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Acknowledgement, Grant, Pipeline, Run, Stage
from dashboard.models.abort_lifecycle import EventType
from dashboard.models.accounts.grants import Action
from dashboard.runs import dismissals
from dashboard.sync import missing_runs
from tests.support import factories
from tests.support.abort_answers import change_after_read_of
from tests.support.databases import counting_statements
from tests.support.html import HTMX, GetPage, parse_html, select_one, text_of
from tests.support.live import Live, token
from tests.support.live_runs import abort_path, create_run_in_flight, submit_abort


def test_abort_confirmation_shows_run_and_stage_and_aborts_nothing(
    get_page: GetPage, run: Run
) -> None:
    html = get_page(factories.address(run, "abort"))
    assert text_of(select_one(html, "h1")) == "Abort “Nightly”?"
    facts = text_of(select_one(html, "main .facts"))
    assert all(part in facts for part in ("Shop", "Checkout", "Production", "r-1", "Running"))
    form = select_one(html, "main form")
    assert (form.attributes["method"], form.attributes["action"]) == (
        "post",
        factories.address(run, "abort"),
    )
    assert select_one(form, '[name="csrfmiddlewaretoken"]').attributes["value"]
    assert select_one(html, "main .actions a").attributes["href"] == factories.address(run)
    assert not run.aborts.exists()


def test_abort_dialog_focuses_its_question(get_page: GetPage, run: Run) -> None:
    answer = get_page(factories.address(run, "abort"), **HTMX)
    assert answer.css("header, nav, main") == []
    assert text_of(select_one(answer, "[autofocus]")) == "Abort “Nightly”?"
    assert text_of(select_one(answer, '[form="close-dialog"]')) == "Keep running"
    assert select_one(answer, "form#close-dialog").attributes["method"] == "dialog"
    # The response names its own targets: the run's row may have left the page meanwhile.
    assert select_one(answer, "form[hx-post]").attributes["hx-swap"] == "none"


@pytest.mark.parametrize("status", ["success", "aborted", "failure", "aborting"])
def test_abort_page_of_ended_run_has_no_form(status: str, get_page: GetPage, stage: Stage) -> None:
    run = factories.run(stage, status=status)
    for headers in ({}, HTMX):
        html = get_page(factories.address(run, "abort"), **headers)
        assert html.css("form[action$='/abort/']") == []
        assert text_of(select_one(html, "[data-reason]"))


DISMISSED = (
    "Removed from Northflank and from the list; its end is unknown. Restore the run to abort it."
)
NOT_CONFIGURED = "This dashboard no longer follows project “shop” (NORTHFLANK_PROJECTS)."


def _dismiss(run: Run, manager: User, _settings: Settings) -> None:
    factories.change(run, removed_at=timezone.now())
    dismissals.dismiss(run, manager)


def _drop_project(run: Run, _manager: User, settings: Settings) -> None:
    settings.NORTHFLANK_PROJECTS = ["payments"]
    missing_runs.stop_tracking(Run.objects.filter(pk=run.pk), timezone.now())


UNKNOWN_ENDS = pytest.mark.parametrize(
    ("end", "reason"),
    [(_dismiss, DISMISSED), (_drop_project, NOT_CONFIGURED)],
    ids=["dismissed", "project not in the setting"],
)


@UNKNOWN_ENDS
@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "dialog"])
def test_abort_page_of_run_with_unknown_end_does_not_say_that_it_has_ended(
    end: Callable[[Run, User, Settings], None],
    reason: str,
    headers: dict[str, str],
    get_page: GetPage,
    run: Run,
    manager: User,
    settings: Settings,
) -> None:
    factories.abort(run, manager, "refused", settled_at=timezone.now())
    end(run, manager, settings)
    html = get_page(factories.address(run, "abort"), **headers)
    assert html.css("form[action$='/abort/']") == []
    assert text_of(select_one(html, "[data-reason]")) == reason


@UNKNOWN_ENDS
@pytest.mark.parametrize("is_late", [True, False], ids=["after it was read", "before"])
def test_abort_of_run_with_unknown_end_sends_nothing_and_says_why(
    end: Callable[[Run, User, Settings], None],
    reason: str,
    is_late: bool,
    operator_client: Client,
    run: Run,
    manager: User,
    settings: Settings,
) -> None:
    address, form = factories.address(run, "abort"), {"reason": "Stuck"}
    if is_late:
        ending = change_after_read_of("dashboard_run", lambda: end(run, manager, settings))
        with connection.execute_wrapper(ending):
            answer = operator_client.post(address, form, headers=HTMX)
        html = parse_html(answer)
    else:
        end(run, manager, settings)
        html = parse_html(operator_client.post(address, form, headers=HTMX))
    notice = select_one(html, ".notice")
    assert text_of(select_one(notice, "p")) == f"Nothing was sent. {reason}"
    assert notice.attributes["data-tone"] == "warning"
    assert not run.aborts.exists()


def test_abort_of_ended_run_sends_nothing_and_shows_notice(
    operator_client: Client, stage: Stage
) -> None:
    run = factories.run(stage, status="success")
    answer = operator_client.post(factories.address(run, "abort"), follow=True)
    assert "already ended; nothing was sent" in text_of(select_one(parse_html(answer), "#notices"))
    assert not run.aborts.exists()


@pytest.mark.parametrize(
    ("status", "is_acknowledged", "view"), [("success", True, "card"), ("failure", False, "")]
)
def test_abort_of_run_that_ends_just_after_it_was_read_shows_its_end(
    operator_client: Client,
    manager: User,
    run: Run,
    status: str,
    is_acknowledged: bool,
    view: str,
) -> None:
    now = timezone.now()
    if is_acknowledged:
        Acknowledgement.objects.create(
            run=run, user=manager, username="manager", acknowledged_at=now
        )
    end = {"status": status, "concluded": True, "in_flight": False, "concluded_at": now}
    ending = change_after_read_of("dashboard_run", lambda: factories.change(run, **end))
    form = {"reason": "Stuck", "view": view}
    with connection.execute_wrapper(ending):
        answer = operator_client.post(factories.address(run, "abort"), form, headers=HTMX)
    assert answer.status_code == 200
    assert re.findall(r'data-concluded="(\w+)"', answer.content.decode()) == ["true"]
    text = text_of(parse_html(answer))
    assert ("already ended; nothing was sent" in text, "not concluded" in text) == (True, False)
    assert not run.aborts.exists()


def test_abort_sent_at_once_needs_few_statements(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    client = live.sign_in("manager")
    # The stream and the record of the rate limit use other threads.
    with counting_statements(application.executor, db_threads.abort_executor) as statements:
        answer = submit_abort(client, run)
    assert f'id="run-{run.run_id}"' in answer.text
    assert sum('FROM "dashboard_grant"' in sql for sql in statements) == 1
    assert sum('INSERT INTO "dashboard_abort"' in sql for sql in statements) == 1
    assert len(statements) <= 24, "\n".join(statements)


def test_abort_confirmed_in_the_dialog_identifies_its_user_in_one_statement(
    live: Live, manager: User
) -> None:
    run = create_run_in_flight(live)
    client = live.sign_in("manager")
    client.get(abort_path(run), headers=HTMX)
    with counting_statements(application.executor, db_threads.abort_executor) as statements:
        answer = submit_abort(client, run)
    assert f'id="run-{run.run_id}"' in answer.text
    assert sum("dashboard_session" in sql for sql in statements) == 1
    assert sum("dashboard_grant" in sql for sql in statements) == 1
    assert len(statements) <= 21, "\n".join(statements)


def _remove_from_group(manager: User) -> None:
    manager.groups.clear()


def _withdraw_grants(_manager: User) -> None:
    Grant.objects.filter(action=Action.ABORT).delete()


def _deactivate(manager: User) -> None:
    User.objects.filter(pk=manager.pk).update(is_active=False)


def _change_password(manager: User) -> None:
    manager.set_password("another")
    manager.save()


def _end_sessions(manager: User) -> None:
    manager.sessions.all().delete()


@pytest.mark.parametrize(
    ("withdraw", "status"),
    [
        (_remove_from_group, 403),
        (_withdraw_grants, 403),
        (_deactivate, 401),
        (_change_password, 401),
        (_end_sessions, 401),
    ],
)
def test_right_withdrawn_after_the_dialog_was_shown_counts(
    withdraw: Callable[[User], None], status: int, live: Live, manager: User
) -> None:
    run = create_run_in_flight(live)
    client = live.sign_in("manager")
    assert client.get(abort_path(run), headers=HTMX).status_code == 200
    withdraw(manager)
    assert submit_abort(client, run).status_code == status
    assert not run.aborts.exists()


def test_abort_does_not_wait_for_the_syncs_database_threads(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    client = live.sign_in("manager")
    released = threading.Event()
    blocked = [
        db_threads.executor.submit(released.wait, 60)
        for _ in range(db_threads.executor._max_workers)
    ]
    try:
        assert submit_abort(client, run).status_code == 200
        assert not any(future.done() for future in blocked)
    finally:
        released.set()
    assert Abort.objects.get().state == "accepted"


def test_abort_over_http_returns_run_row_and_notice(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    client = live.sign_in("manager")
    headers = {**HTMX, "X-CSRFToken": token(client)}
    answer = client.post(factories.address(run, "abort"), headers=headers, data={"reason": "Stuck"})
    element = answer.text.partition('hx-swap="outerMorph">')[2].partition("</hx-partial>")[0]
    row = select_one(LexborHTMLParser(f"<table>{element}</table>"), "tr[data-run]")
    assert answer.status_code == 200
    assert row.attributes["data-status"] == "aborting"
    assert row.attributes["data-version"] == str(Run.objects.get().version)
    assert text_of(select_one(row, ".status [data-badge]")) == "Aborting"
    fragment = LexborHTMLParser(answer.text.replace("<tr", "<div").replace("<td", "<div"))
    assert select_one(fragment, f'hx-partial[hx-target="#{row.attributes["id"]}"]')
    assert "Abort accepted" in text_of(select_one(fragment, 'hx-partial[hx-target="#notices"]'))
    assert run.aborts.get().reason == "Stuck"


def test_abort_over_http_from_run_page_returns_run_card(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    client = live.sign_in("manager")
    page = LexborHTMLParser(client.get(factories.address(run)).text)
    dialog = client.get(
        select_one(page, "[data-abort]").attributes["hx-get"] or "", headers=HTMX
    ).text
    headers = {**HTMX, "X-CSRFToken": token(client)}
    view = select_one(LexborHTMLParser(dialog), "[name=view]").attributes["value"]
    form = {"reason": "Stuck", "view": view}
    answer = client.post(factories.address(run, "abort"), headers=headers, data=form)
    card = select_one(LexborHTMLParser(answer.text), "section.run")
    assert card.attributes["data-status"] == "aborting"
    assert card.attributes["data-version"] == str(Run.objects.get().version)
    assert card.css_first("[data-verdict]") is not None


def test_abort_over_http_without_javascript_redirects_with_notice(
    live: Live, manager: User
) -> None:
    run = create_run_in_flight(live)
    client = live.sign_in("manager")
    form = {"csrfmiddlewaretoken": token(client), "pick": "Stuck"}
    answer = client.post(factories.address(run, "abort"), data=form)
    assert (answer.status_code, answer.headers["location"]) == (302, factories.address(run))
    html = parse_html(client.get(answer.headers["location"]))
    assert "Abort accepted" in text_of(select_one(html, "#notices"))
    refresh = select_one(html, "noscript meta").attributes
    assert refresh["http-equiv"] == "refresh"
    assert refresh["content"] == f"3; url={factories.address(run)}"  # without a hash


def test_page_with_forms_is_not_reloaded_without_javascript_while_a_run_is_aborting(
    get_page: GetPage, manager: User, run: Run
) -> None:
    factories.abort(run, manager)
    run_page = get_page(factories.address(run))
    assert len(run_page.css("noscript meta")) == 1
    pipeline = factories.address(run.stage.pipeline)
    for address in ("/", "/board/", "/aborts/", pipeline, factories.address(run.stage)):
        page = get_page(address)
        assert page.css("noscript meta") == [], address


# --- the reason --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "required"), [("Production", True), ("Staging", False)])
def test_abort_dialog_requires_reason_in_production_only(
    name: str, required: bool, get_page: GetPage, pipeline: Pipeline
) -> None:
    run = factories.run(factories.stage(name, parent=pipeline))
    html = get_page(factories.address(run, "abort"), **HTMX)
    assert ("(required)" in text_of(select_one(html, ".reason legend"))) == required
    assert bool(html.css(".production-warning")) == required


def test_abort_without_required_reason_returns_422_to_dialog(
    operator_client: Client, run: Run
) -> None:
    answer = operator_client.post(factories.address(run, "abort"), headers=HTMX)
    assert answer.status_code == 422
    assert answer.content.decode() == "A reason is required to abort runs in Production."
    assert not run.aborts.exists()


def test_abort_page_without_required_reason_shows_field_error(
    operator_client: Client, run: Run
) -> None:
    answer = operator_client.post(factories.address(run, "abort"), {"reason": " "})
    html = parse_html(answer)
    assert answer.status_code == 422
    assert "A reason is required" in text_of(select_one(html, "[data-error]"))
    assert select_one(html, "#reason").attributes["aria-invalid"] == "true"


@pytest.mark.parametrize(
    ("pick", "text", "stored"),
    [("Stuck", "", "Stuck"), ("", "hm", "hm"), ("Incident", " INC-7 ", "Incident: INC-7")],
)
def test_abort_reason_combines_quick_pick_and_text(
    live: Live, manager: User, pick: str, text: str, stored: str
) -> None:
    run = create_run_in_flight(live)
    data = {"pick": pick, "reason": text, "csrfmiddlewaretoken": token(live.sign_in("manager"))}
    client = live.clients[-1]
    assert client.post(factories.address(run, "abort"), data=data).status_code == 302
    assert run.aborts.get().reason == stored


# --- an abort that does not end ----------------------------------------------------------------


def overdue_abort(run: Run, user: User, level: int, **fields: Any) -> Abort:
    """An abort that has been under way for a quarter of an hour, at this severity."""
    past = timezone.now() - timedelta(minutes=15)
    abort = factories.abort(run, user, requested_at=past, sent_at=past, responded_at=past, **fields)
    factories.change(run, status="aborting", abort_severity=level, status_since=past)
    return abort


def test_abort_at_warning_severity_has_no_button_and_no_next_steps(
    get_page: GetPage, run: Run, manager: User
) -> None:
    overdue_abort(run, manager, 1)
    html = get_page(factories.address(run))
    assert html.css("[data-abort], .next-steps") == []
    assert "longer than 3 min" in text_of(select_one(html, ".abort-line"))


def test_abort_at_critical_severity_offers_abort_again_and_next_steps(
    get_page: GetPage, run: Run, stage: Stage, manager: User
) -> None:
    overdue_abort(run, manager, 2)
    factories.run(stage, status="queued", name="Hotfix", started_at=None, created_at=timezone.now())
    html = get_page(factories.address(run))
    assert text_of(select_one(html, "[data-abort]")) == "Abort again"
    steps = text_of(select_one(html, ".next-steps"))
    assert "Blocks 1 run: Hotfix." in steps
    assert all(part in steps for part in ("Run: r-1", "Project: shop", "Stage: Production"))


@pytest.mark.parametrize(
    ("policy", "is_said"), [("queue", True), ("allow", False), ("replace", False), ("", False)]
)
def test_next_steps_say_that_no_run_waits_where_runs_queue(
    policy: str, is_said: bool, get_page: GetPage, run: Run, manager: User
) -> None:
    Stage.objects.update(concurrency_policy=policy)
    overdue_abort(run, manager, 2)
    steps = select_one(get_page(factories.address(run)), ".next-steps")
    assert ("Blocks no run." in text_of(steps)) is is_said
    assert all(text_of(step) for step in steps.css("li"))


def test_support_request_excludes_user_reason_and_controls_of_direction(
    get_page: GetPage, run: Run, manager: User
) -> None:
    error_id = "err-\u202e42"
    overdue_abort(run, manager, 2, reason="secret plan", error_id=error_id, response="aborting")
    text = select_one(get_page(factories.address(run)), "#support-text").text()
    assert "Error ID: err-42" in text
    assert "UTC" in text
    assert "secret plan" not in text
    assert "manager" not in text


def test_next_steps_for_viewer_name_who_may_abort_again(
    viewer_client: Client, run: Run, manager: User
) -> None:
    overdue_abort(run, manager, 2)
    html = parse_html(viewer_client.get(factories.address(run)))
    assert "disabled" in select_one(html, "[data-abort]").attributes
    assert "Release managers" in text_of(select_one(html, ".next-steps"))


def test_abort_again_confirmation_announces_fresh_read(
    get_page: GetPage, run: Run, manager: User
) -> None:
    abort = overdue_abort(run, manager, 2)
    html = get_page(factories.address(run, "abort"), **HTMX)
    assert text_of(select_one(html, "h1")) == "Abort “Nightly” again?"
    assert "The dashboard checks the run first" in text_of(html)
    assert select_one(html, "[name=again_of]").attributes["value"] == str(abort.pk)


def test_foreign_abort_at_critical_severity_offers_abort_again(get_page: GetPage, run: Run) -> None:
    past = timezone.now() - timedelta(minutes=15)
    factories.change(run, status="aborting", abort_severity=2, status_since=past)
    html = get_page(factories.address(run))
    assert "requested outside this dashboard" in text_of(select_one(html, ".abort-line"))
    assert text_of(select_one(html, "[data-abort]")) == "Abort again"


# --- messages ----------------------------------------------------------------------------------


def test_run_page_shows_abort_timeline(get_page: GetPage, run: Run, manager: User) -> None:
    abort = factories.abort(run, manager, reason="Stuck")
    for event_type in (EventType.REQUESTED, EventType.SENT):
        abort.add_event(event_type, timezone.now())
    lines = [
        text_of(line) for line in get_page(factories.address(run)).css(".abort-timeline li bdi")
    ]
    assert lines == ["Requested by manager: “Stuck”.", "Sent to Northflank."]
