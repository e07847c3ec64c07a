"""What an abort has left running is listed on the run's page, aborted there, and followed."""

import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser, LexborNode

from dashboard.models import Abort, Lead, Run, Upstream, Work
from dashboard.sandbox import parse_fault
from tests.support import factories
from tests.support.html import HTMX, GetPage, parse_html, select_one, text_of
from tests.support.live import Live, token
from tests.support.live_runs import (
    advance_time,
    reconcile,
    run_live_with_survivor,
    shorten_upstream_timeout,
    submit_abort,
)

ADDRESS = "abort_left"


@pytest.fixture
def survivor(transactional_db: None) -> Iterator[tuple[Live, Run]]:
    """A run that waits for a job run that survives its abort."""
    with run_live_with_survivor() as survivor:
        yield survivor


def read_due(live: Live) -> None:
    """Let a worker read what is due."""

    async def read() -> None:
        for _ in range(5):
            await live.worker.tick()
            await live.worker.wait_idle()

    live.run(read)


def listed(html: LexborHTMLParser) -> list[LexborNode]:
    return html.css("[data-left-running]")


def html_buttons(html: LexborHTMLParser) -> list[LexborNode]:
    return html.css("[data-abort-left]")


def submit_abort_of(client: httpx.Client, work: Work) -> httpx.Response:
    form = {"csrfmiddlewaretoken": token(client), "work": str(work.pk), "view": "card"}
    address = factories.address(work.run, ADDRESS)
    return client.post(address, data=form | {"reason": "Stuck"}, headers=HTMX)


def page_of(client: httpx.Client, run: Run) -> LexborHTMLParser:
    return parse_html(client.get(factories.address(run)))


def test_job_run_that_survives_the_abort_is_listed_aborted_and_ends(
    survivor: tuple[Live, Run], manager: User
) -> None:
    live, run = survivor
    client = live.sign_in("manager")
    submit_abort(client, run)
    read_due(live)
    [item] = listed(page_of(client, run))
    work = Work.objects.get(run=run)
    assert item.attributes["data-id"] == work.work_id
    assert (item.attributes["data-kind"], item.attributes["data-status"]) == ("job_run", "RUNNING")
    advance_time(live, 10)
    Run.objects.filter(pk=run.pk).update(next_detail_sync_at=run.created_at)
    read_due(live)
    assert Run.objects.get(pk=run.pk).status == "aborted"

    html = page_of(client, run)
    [button] = html.css("[data-abort-left]")
    address = button.attributes["href"] or ""
    confirmation = parse_html(client.get(address))
    assert text_of(select_one(confirmation, "h1")) == f"Abort “Job run {work.name}”?"
    assert not Abort.every.filter(work=work).exists()
    answer = submit_abort_of(client, work)
    abort = Abort.every.get(work=work)
    assert (abort.username, abort.reason, abort.state) == ("manager", "Stuck", "accepted")
    assert "status is still RUNNING" in answer.text  # in the run's card
    submit_abort_of(client, work)  # joins it
    assert live.sandbox.abort_request_counts[work.work_id] == 1

    advance_time(live, 5)
    Work.objects.update(next_sync_at=run.created_at)
    read_due(live)
    abort.refresh_from_db()
    assert (abort.state, abort.outcome) == ("concluded", "FAILED")
    [item] = listed(page_of(client, run))
    assert item.attributes["data-concluded"] == "true"
    assert "ended" in text_of(item)
    assert html_buttons(page_of(client, run)) == []


@pytest.mark.parametrize(
    ("fault", "arrives"), [("reset-after:5@abort-", True), ("reset:5@abort-", False)]
)
def test_abort_without_an_answer_is_resent_while_the_job_run_goes_on(
    survivor: tuple[Live, Run], manager: User, fault: str, arrives: bool
) -> None:
    live, run = survivor
    client = live.sign_in("manager")
    submit_abort(client, run)
    read_due(live)
    work = Work.objects.get(run=run)
    shorten_upstream_timeout(live)
    live.sandbox.faults = [parse_fault(fault)]
    submit_abort_of(client, work)
    abort = Abort.every.get(work=work)
    assert (abort.state, abort.settled_at) == ("unknown", None)
    live.sandbox.faults = []
    if arrives:
        advance_time(live, 5)
    earlier = abort.claimed_at - timedelta(seconds=2)
    Abort.every.filter(pk=abort.pk).update(claimed_at=earlier)
    reconcile(live)
    abort.refresh_from_db()
    assert (abort.state, abort.send_count) == (("concluded", 1) if arrives else ("accepted", 2))


@pytest.mark.slow
def test_command_aborts_what_the_run_has_left_running_without_a_worker(
    survivor: tuple[Live, Run], manager: User, settings: Settings
) -> None:
    live, run = survivor
    settings.SANDBOX = False
    settings.NORTHFLANK_API_TOKEN = live.connection.token
    settings.NORTHFLANK_API_BASE_URL = live.upstream_url
    submit_abort(live.sign_in("manager"), run)
    read_due(live)
    work = Work.objects.get(run=run)
    Lead.objects.update(renewed_at=run.created_at)
    Upstream.objects.update(source=live.upstream_url)

    def abort_left(work_id: str) -> str:
        output = io.StringIO()
        options = {"as": "manager", "left": work_id, "reason": "Stuck", "wait": 30}
        call_command("abort", run.run_id, stdout=output, stderr=io.StringIO(), **options)
        return output.getvalue()

    for unknown in ("", run.run_id):  # a variable that is not set aborts nothing
        with pytest.raises(CommandError, match="nothing that the abort of this run has left"):
            abort_left(unknown)
    assert abort_left(work.work_id).startswith("Ended (FAILED) ")
    abort = Abort.every.get(work=work)
    assert (abort.via, abort.state) == ("command", "concluded")
    assert abort_left(work.work_id) == "It had already ended; nothing was sent.\n"


# --- As mirrored ----------------------------------------------------------------------------------


@pytest.fixture
def aborted_run(db: None) -> Run:
    """An aborted run whose steps name two job runs that still run."""
    run = factories.run(
        factories.stage("Staging"), status="aborted", steps=factories.steps_naming("j1", "j2")
    )
    for work_id in ("j1", "j2"):
        factories.work(run, work_id=work_id, name=f"migrate-{work_id}")
    return run


def test_all_that_is_left_running_can_be_aborted_at_once(
    get_page: GetPage, aborted_run: Run
) -> None:
    html = get_page(factories.address(aborted_run))
    *single, whole = html_buttons(html)
    assert [text_of(button) for button in single] == ["Abort", "Abort"]
    assert text_of(whole) == "Abort all 2"
    confirmation = get_page(whole.attributes["href"] or "", **HTMX)
    assert text_of(select_one(confirmation, "h1")) == "Abort 2 that are still running?"
    values = [field.attributes["value"] for field in confirmation.css('[name="work"]')]
    assert sorted(values) == sorted(str(work.pk) for work in aborted_run.works.all())


def test_incident_summary_says_what_is_left_running_and_what_ended(
    get_page: GetPage, aborted_run: Run
) -> None:
    ended_at = aborted_run.status_since + timedelta(seconds=60)
    aborted_run.works.filter(work_id="j2").update(
        status="FAILED", concluded=True, ended_at=ended_at
    )
    text = text_of(select_one(get_page(factories.address(aborted_run)), "#incident-summary"))
    assert "Left running by the abort: job run migrate-j1 (j1), RUNNING, started 2" in text
    assert "Left running by the abort: job run migrate-j2 (j2), FAILED, ended 2" in text


def press_abort_all(live: Live, run: Run) -> LexborHTMLParser:
    """Press the button for both job runs of `aborted_run`; return what is shown then."""
    client = live.sign_in("manager")
    form = {"csrfmiddlewaretoken": token(client), "reason": "Stuck", "view": "card"}
    works = [str(pk) for pk in run.works.values_list("pk", flat=True)]
    address = factories.address(run, ADDRESS)
    answer = client.post(address, data=form | {"work": works}, headers=HTMX)
    assert answer.status_code == 200
    return parse_html(answer)


@pytest.mark.parametrize("ended", [0, 1, 2])
def test_abort_of_all_aborts_each_and_tells_which_ended_meanwhile(
    live: Live, aborted_run: Run, manager: User, ended: int
) -> None:
    ended_pks = aborted_run.works.order_by("pk").values_list("pk", flat=True)[:ended]
    Work.objects.filter(pk__in=list(ended_pks)).update(concluded=True, ended_at=timezone.now())
    html = press_abort_all(live, aborted_run)
    aborts = Abort.every.all()
    assert sorted(abort.work.work_id for abort in aborts if abort.work) == ["j1", "j2"][ended:]
    states = {
        item.attributes["data-id"]: item.attributes["data-concluded"] for item in listed(html)
    }
    assert states == {"j1": str(ended > 0).lower(), "j2": str(ended > 1).lower()}
    assert ("It has ended; there is nothing to abort." in text_of(select_one(html, "body"))) == (
        ended == 2
    )


def test_what_is_only_probably_of_the_run_is_not_listed(
    get_page: GetPage, aborted_run: Run
) -> None:
    aborted_run.works.update(is_probable=True)
    html = get_page(factories.address(aborted_run))
    assert listed(html) == html_buttons(html) == []
    [work, _] = aborted_run.works.all()
    address = factories.address(aborted_run, ADDRESS)
    refused = get_page(f"{address}?work={work.pk}")
    assert text_of(select_one(refused, "[data-reason]")) == (
        "It has ended; there is nothing to abort."
    )


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"concluded": True, "ended_at": -60}, 0),  # before the abort
        ({"concluded": True, "ended_at": 60}, 2),
        ({"status": ""}, 0),  # not read yet
        ({"status": "", "error": "The API token lacks the permission Jobs > General > Read."}, 2),
    ],
)
def test_only_what_ran_after_the_abort_is_listed(
    get_page: GetPage, aborted_run: Run, fields: dict[str, Any], count: int
) -> None:
    if "ended_at" in fields:
        fields = fields | {
            "ended_at": aborted_run.status_since + timedelta(seconds=fields["ended_at"])
        }
    aborted_run.works.update(**fields)
    html = get_page(factories.address(aborted_run))
    assert len(listed(html)) == count
    assert all(fields.get("error", "") in text_of(item) for item in listed(html))


@pytest.mark.parametrize("status", ["running", "success"])
def test_nothing_is_listed_for_a_run_that_was_not_aborted(
    get_page: GetPage, aborted_run: Run, status: str
) -> None:
    factories.change(aborted_run, status=status)
    assert listed(get_page(factories.address(aborted_run))) == []


def test_whoever_may_not_abort_the_stage_sees_a_disabled_button(
    viewer_client: Client, aborted_run: Run
) -> None:
    html = parse_html(viewer_client.get(factories.address(aborted_run)))
    assert {button.attributes.get("disabled", "no") for button in html_buttons(html)} == {None}
    work = aborted_run.works.first()
    assert work is not None
    answer = viewer_client.post(
        factories.address(aborted_run, ADDRESS), {"work": work.pk, "reason": "x"}
    )
    assert answer.status_code == 403
    assert not Abort.every.exists()


def test_abort_of_a_job_run_is_in_the_log_and_its_export_with_its_name(
    get_page: GetPage, aborted_run: Run, manager: User
) -> None:
    work = aborted_run.works.get(work_id="j1")
    factories.abort(aborted_run, manager, work=work)
    row = select_one(get_page("/aborts/"), "[data-abort-row]")
    assert text_of(select_one(row, "[data-work]")) == "Job run migrate-j1"
    assert "Job run" in text_of(row)


def test_dialog_tells_what_the_steps_of_the_run_have_running(get_page: GetPage) -> None:
    run = factories.run(factories.stage(), steps=factories.steps_naming("j1", status="waiting"))
    html = get_page(factories.address(run, "abort"), **HTMX)
    running = text_of(select_one(html, "[data-running-now] dd"))
    assert running == "Job run of migrate. Aborting the run may not stop it."
    factories.work(run, started_at=None)
    html = get_page(factories.address(run, "abort"), **HTMX)
    assert "Job run migrate-j1." in text_of(select_one(html, "[data-running-now] dd"))
