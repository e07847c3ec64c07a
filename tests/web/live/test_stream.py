"""Stream messages of an open page: through the real server, as the browser receives them."""

import asyncio
import contextlib
import re
import time
from datetime import timedelta
from typing import NoReturn

import httpx
import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from selectolax.lexbor import LexborHTMLParser

from dashboard.accounts import permissions
from dashboard.accounts.sessions import SignedInSession
from dashboard.db.threads import now, run_in_db_thread
from dashboard.models import ChangeCounter, Pipeline, Project, Run, Stage, Star
from dashboard.models.severity import Severity
from dashboard.runs import acknowledgements
from dashboard.runs.acknowledgements import MAX_FAILURE_AGE
from dashboard.sync import overdue_checker
from dashboard.web.components.board import board_list
from dashboard.web.live import changes, event_ids, feed
from dashboard.web.live.changes import HEARTBEAT_EVENT, STALE_EVENT, Channel
from dashboard.web.live.event_ids import Since
from dashboard.web.pages.board import BoardPage
from dashboard.web.pages.now import NowPage
from tests.support import factories
from tests.support.databases import table_renamed
from tests.support.html import select_one, text_of
from tests.support.live import WAIT_TIMEOUT, Live
from tests.support.live_runs import wait_until
from tests.support.sessions import session_key
from tests.support.stream import (
    fast_polling,
    messages,
    next_part,
    next_parts,
    open_stream,
    stream_address,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("page", ["/", "/board/", "/aborts/", "/health/"])
def test_page_stream_starts_at_version_of_page(
    page: str, run: Run, viewer_http_client: httpx.Client
) -> None:
    assert re.search(rf"since={run.version}\.\d+-", stream_address(viewer_http_client, page))


@pytest.fixture
def run(live: Live) -> Run:
    return factories.run(factories.stage(), "r-1", name="Nightly")


@pytest.fixture
def viewer_http_client(live: Live, viewer: User) -> httpx.Client:
    return live.sign_in("viewer")


def test_changed_run_is_streamed_as_run_row(run: Run, viewer_http_client: httpx.Client) -> None:
    with open_stream(viewer_http_client) as stream:
        factories.change(run, status="approval_wait")
        part = next_part(stream, "run-r-1", "Needs approval")
    assert part.attributes["hx-swap"] == "outerMorph"  # not new: its section lists it


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_stream_is_compressed_for_those_who_accept_it_and_not_buffered(
    encoding: str, run: Run, viewer_http_client: httpx.Client
) -> None:
    headers = {"Accept-Encoding": encoding}
    with viewer_http_client.stream("GET", "/live/?page=now&since=0", headers=headers) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["content-encoding"] == encoding
        received = messages(answer)
        assert "data-age" in next(received).parts
        factories.change(run, status="approval_wait")
        assert "run-r-1" in next(message for message in received if message.parts).parts


def test_reconnected_stream_replays_missed_changes(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    version = ChangeCounter.latest()
    factories.change(run, status="failure", concluded=True, in_flight=False)
    address = f"/live/?page=now&since={version}"
    with viewer_http_client.stream("GET", address) as answer:
        first_message = next(messages(answer))
    assert "Failed" in first_message.parts["run-r-1"].text()
    assert first_message.id.startswith(f"{ChangeCounter.latest()}-")
    # The browser sends the last event id it received as a header.
    with viewer_http_client.stream(
        "GET", address, headers={"Last-Event-ID": first_message.id}
    ) as answer:
        assert "run-r-1" not in next(messages(answer)).parts


@pytest.mark.parametrize("since", ["", "no-number", "99999999999", "-1", "٣"])
def test_stream_with_invalid_version_tells_page_to_reload(
    since: str, run: Run, viewer_http_client: httpx.Client
) -> None:
    with viewer_http_client.stream(
        "GET", "/live/", params={"page": "now", "since": since}
    ) as answer:
        stream = messages(answer)
        next(stream)
        assert next(stream).event == STALE_EVENT


def test_stream_with_too_many_changes_tells_page_to_reload(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    version = ChangeCounter.latest()
    for _ in range(changes.MAX_RUNS + 1):
        factories.run(run.stage)
    with viewer_http_client.stream("GET", f"/live/?page=now&since={version}") as answer:
        stream = messages(answer)
        assert len(next(stream).parts) < changes.MAX_RUNS + 15
        assert next(stream).event == STALE_EVENT


def test_stream_excludes_newly_synced_old_runs(run: Run, viewer_http_client: httpx.Client) -> None:
    version = ChangeCounter.latest()
    three_days_ago = timezone.now() - timedelta(days=3)
    for number in range(changes.MAX_RUNS + 1):
        factories.run(
            run.stage,
            f"old-{number}",
            status="success",
            created_at=three_days_ago,
            concluded_at=three_days_ago,
        )
    factories.change(run, status="retrying")
    with viewer_http_client.stream("GET", f"/live/?page=now&since={version}") as answer:
        first_message = next(messages(answer))
    assert "run-r-1" in first_message.parts
    assert not [part for part in first_message.parts if part.startswith("run-old")]


def test_stream_contains_only_changes_of_its_page(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    other = factories.run(factories.stage("Staging"), "r-2")
    hidden_run = factories.run(factories.stage(parent=factories.pipeline("ledger")), "r-3")
    for page, key in (
        ("stage", run.stage_id),
        ("run", run.pk),
    ):
        with open_stream(viewer_http_client, page, key) as stream:
            factories.change(hidden_run, status="retrying")
            factories.change(other, status="retrying")
            factories.change(run, status="retrying")
            part_ids: set[str] = set()
            for message in stream:
                part_ids |= message.parts.keys()
                if "run-r-1" in part_ids:
                    break
        assert not part_ids & {"run-r-2", "run-r-3"}, page


def test_board_stream_updates_stage_cell(run: Run, viewer_http_client: httpx.Client) -> None:
    with open_stream(viewer_http_client, "board") as stream:
        factories.change(run, status="retrying")
        next_part(stream, f"stage-{run.stage_id}", "Retrying")


def test_run_stream_updates_run_card(run: Run, viewer_http_client: httpx.Client) -> None:
    with open_stream(viewer_http_client, "run", run.pk) as stream:
        factories.change(run, status="aborting")
        card = next_part(stream, "run-r-1", "Aborting")
    assert card.css_first("[data-verdict]") is not None
    assert card.css_first("[data-steps]") is not None


def test_aborts_stream_updates_abort_row(
    run: Run, manager: User, viewer_http_client: httpx.Client
) -> None:
    abort = factories.abort(run, manager, "accepted")
    with open_stream(viewer_http_client, "aborts") as stream:
        factories.change(run, status="aborting")
        next_part(stream, f"abort-{abort.pk}", "Under way")


@fast_polling
def test_new_abort_changes_structure_hash_of_abort_log(
    run: Run, manager: User, viewer_http_client: httpx.Client
) -> None:
    before = page_structure_hash(viewer_http_client, "aborts")
    with open_stream(viewer_http_client, "aborts") as stream:
        factories.abort(run, manager)
        line = next_part(stream, "data-age").css_first("p")
        while line is not None and line.attributes["data-structure"] == before:
            line = next_part(stream, "data-age").css_first("p")


@fast_polling
def test_status_stream_updates_on_stage_error(run: Run, viewer_http_client: httpx.Client) -> None:
    with open_stream(viewer_http_client, "health") as stream:
        Stage.objects.update(error="forbidden", error_message="Permission was taken away.")
        next_part(stream, "status", "Permission was taken away.")


def test_change_of_related_run_is_streamed_without_run_card(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    with open_stream(viewer_http_client, "run", run.pk) as stream:
        factories.change(run, status="aborting", abort_severity=Severity.CRITICAL)
        next_part(stream, "run-r-1", "Aborting")  # else one message may contain both changes
        factories.run(run.stage, "r-2", name="Hotfix", status="queued", started_at=None)
        parts = next_parts(stream, "related-runs", "Hotfix")
    assert "run-r-1" not in parts
    assert "Hotfix" in parts["related-runs"].text()
    assert "Hotfix" in parts["next-steps"].text()
    assert "Blocks 1 run" in parts["run-summary"].text()
    assert "Blocks: Hotfix (r-2)" in parts["incident-summary"].text()


def test_ended_run_of_same_stage_streams_run_card(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    # The baseline is updated as runs end, and is shown at each step.
    other = factories.run(run.stage, "r-2", name="Hotfix")
    with open_stream(viewer_http_client, "run", run.pk) as stream:
        now = timezone.now()
        factories.change(other, status="success", concluded=True, in_flight=False, concluded_at=now)
        next_part(stream, "run-r-1")


def test_stream_updates_counts_and_tab_title(run: Run, viewer_http_client: httpx.Client) -> None:
    with open_stream(viewer_http_client) as stream:
        factories.run(run.stage, status="approval_wait")
        tab_title = ""
        while tab_title != "Needs approval · Now · Release flows":
            title = next_part(stream, "tab-title").css_first("span")
            assert title is not None
            tab_title = title.attributes["data-title"] or ""


@fast_polling
def test_upstream_outage_is_streamed(run: Run, viewer_http_client: httpx.Client) -> None:
    with open_stream(viewer_http_client, "stage", run.stage_id) as stream:
        factories.upstream_error("It fell over.", timezone.now())
        next_part(stream, "upstream-error", "It fell over.")


@fast_polling
def test_policy_and_pause_of_a_stage_are_streamed(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    with open_stream(viewer_http_client, "stage", run.stage_id) as stream:
        Stage.objects.update(paused=True)
        next_part(stream, "policy-notes", "Triggers are paused")
        Stage.objects.update(concurrency_policy="queue", paused=False)
        part = next_part(stream, "policy-notes", "one after another")
        assert "Triggers are paused" not in part.text()


def page_structure_hash(client: httpx.Client, page: str, key: int = 0) -> str:
    """The page's current structure hash, from the stream's first message."""
    with client.stream("GET", f"/live/?page={page}&key={key}") as answer:
        part = next(messages(answer)).parts["data-age"].css_first("p")
    assert part is not None
    return part.attributes["data-structure"] or ""


def test_board_stream_sends_only_cells_of_its_page(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    for number in range(board_list.PER_PAGE):
        factories.pipeline(f"a-{number}")
    last = factories.run(factories.stage(parent=factories.pipeline("z")), "r-z", status="success")
    with viewer_http_client.stream("GET", "/live/?page=board&since=0") as answer:
        first_page = next(messages(answer)).parts
    with viewer_http_client.stream("GET", "/live/?page=board&query=page%3D2&since=0") as answer:
        second_page = next(messages(answer)).parts
    assert f"stage-{run.stage_id}" in first_page.keys() - second_page.keys()
    assert f"stage-{last.stage_id}" in second_page.keys() - first_page.keys()
    assert first_page["tab-title"].html == second_page["tab-title"].html


def test_board_stream_offers_changes_when_pipeline_changes_group_but_not_else(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    other = factories.run(factories.stage(parent=factories.pipeline("a")), "r-2", status="success")
    before = page_structure_hash(viewer_http_client, "board")
    factories.change(run, status="waiting")
    factories.run(run.stage, "r-3")
    assert page_structure_hash(viewer_http_client, "board") == before
    factories.run(other.stage, "r-4")  # both pipelines are in flight now, the other one first
    assert page_structure_hash(viewer_http_client, "board") != before


def test_board_stream_counts_pipelines_that_need_attention(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    with open_stream(viewer_http_client, "board") as stream:
        factories.change(run, overdue_severity=1, overdue_reason="run")
        next_part(stream, "board-choices", "Needs attention 1")


@pytest.mark.parametrize("page", ["now", "board", "pipeline", "stage"])
def test_change_that_needs_page_reload_changes_structure_hash(
    page: str, run: Run, viewer_http_client: httpx.Client
) -> None:
    key = {"pipeline": run.stage.pipeline_id, "stage": run.stage_id}.get(page, 0)
    address = {
        "now": "/",
        "board": "/board/",
        "pipeline": factories.address(run.stage.pipeline),
        "stage": factories.address(run.stage),
    }[page]
    hashes = [page_structure_hash(viewer_http_client, page, key)]
    line = LexborHTMLParser(viewer_http_client.get(address).text).css_first("#data-age")
    assert line is not None
    assert line.attributes["data-structure"] == hashes[0]
    factories.change(run, status="retrying")
    assert page_structure_hash(viewer_http_client, page, key) == hashes[0]  # rendered without it

    Stage.objects.update(has_flow=False)
    hashes.append(page_structure_hash(viewer_http_client, page, key))
    Stage.objects.update(synced_at=None)
    hashes.append(page_structure_hash(viewer_http_client, page, key))
    if page in {"now", "board"}:
        factories.stage(parent=factories.pipeline("brand-new"))
        hashes.append(page_structure_hash(viewer_http_client, page, key))
    if page == "board":
        Stage.objects.update(error="forbidden", error_message="Permission was taken away.")
        hashes.append(page_structure_hash(viewer_http_client, page, key))
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize(
    ("removed", "page"),
    [(Pipeline, "pipeline"), (Pipeline, "run"), (Project, "stage"), (Project, "ended run")],
)
def test_removal_changes_structure_hash_until_it_is_taken_back(
    removed: type[Project | Pipeline], page: str, run: Run, viewer_http_client: httpx.Client
) -> None:
    if page == "ended run":
        factories.change(run, status="success", concluded=True, in_flight=False)
    name = page.removeprefix("ended ")
    place = {"pipeline": run.stage.pipeline, "stage": run.stage, "run": run}[name]
    before = page_structure_hash(viewer_http_client, name, place.pk)
    removed.objects.update(removed_at=timezone.now())
    assert page_structure_hash(viewer_http_client, name, place.pk) != before
    removed.objects.update(removed_at=None)
    assert page_structure_hash(viewer_http_client, name, place.pk) == before


def test_now_stream_adds_new_run_to_its_section_with_heading(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    with open_stream(viewer_http_client) as stream:
        factories.run(run.stage, "r-2", name="Hotfix", status="failure")
        section = next_part(stream, "section-attention", "Hotfix")
        assert text_of(section.css_first("h2")) == "Needs attention 1"
        assert section.css_first("#run-r-2").attributes["data-status"] == "failure"


def test_stream_of_my_pipelines_counts_their_runs_only(
    run: Run, viewer: User, viewer_http_client: httpx.Client
) -> None:
    Star.objects.create(user=viewer, pipeline=run.stage.pipeline)
    factories.run(factories.stage(parent=factories.pipeline("other")))
    address = re.sub("since=[^&]*", "since=0", stream_address(viewer_http_client, "/?mine=1"))
    with viewer_http_client.stream("GET", address) as answer:
        section = next(messages(answer)).parts["section-in-flight"]
    assert text_of(select_one(section, "h2")) == "In flight 1 in 1 stage"


def test_board_stream_updates_the_later_stages_of_a_pipeline(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    factories.run(run.stage, name="1.4", status="success")
    staging = factories.stage("Staging", parent=run.stage.pipeline)
    ended_at = timezone.now() - timedelta(hours=1)
    factories.run(staging, name="1.4", status="success", concluded_at=ended_at)
    with open_stream(viewer_http_client, "board") as stream:
        factories.run(staging, name="1.5", status="success")
        next_part(stream, f"stage-{run.stage_id}", "1 behind Staging")


def test_now_stream_sends_placeholders_for_rows_of_page(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    with open_stream(viewer_http_client) as stream:
        factories.run(run.stage, "r-2", name="Hotfix")
        section = next_part(stream, "section-in-flight", "Hotfix")
        assert "data-unchanged" in section.css_first("#run-r-1").attributes
        assert "data-unchanged" not in section.css_first("#run-r-2").attributes


@pytest.mark.parametrize("page", ["now", "board"])
@fast_polling
def test_stream_removes_incomplete_notice_when_all_stages_are_read(
    page: str, run: Run, viewer_http_client: httpx.Client
) -> None:
    unread = factories.stage("Development", synced_at=None, fresh_until=None)
    with open_stream(viewer_http_client, page) as stream:
        Stage.objects.filter(pk=unread.pk).update(error="x", error_message="No.")
        line = next_part(stream, "data-age", "cannot be read")
        assert line.css_first("[data-incomplete]") is not None
        now = timezone.now()
        Stage.objects.filter(pk=unread.pk).update(synced_at=now, error="", error_message="")
        while "Incomplete" in (message := next_parts(stream, "tab-title"))["tab-title"].html:
            pass  # as before, for new viewers
        assert message["data-age"].css_first("[data-incomplete]") is None


@fast_polling
def test_deleted_run_is_streamed_and_other_streams_continue(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    other = factories.run(run.stage, "r-2")
    with (
        open_stream(viewer_http_client, "run", run.pk) as page,
        open_stream(viewer_http_client) as now,
    ):
        Run.objects.filter(pk=run.pk).delete()
        next_part(page, "data-age", "No longer available")
        factories.change(other, status="retrying")
        next_part(now, "run-r-2", "Retrying")


def test_page_that_is_older_than_the_last_round_gets_its_parts(run: Run, live: Live) -> None:
    channel, session = Channel(NowPage.name, 0, permissions.ALL), SignedInSession("", "")

    async def receive() -> bytes:
        broadcaster = feed.Broadcaster()
        since = Since(run.version, read_at=event_ids.milliseconds(now()) - 1)
        with broadcaster.hub.subscribe(channel, session):
            await run_in_db_thread(factories.upstream_error, "It fell over.")
            await broadcaster.broadcast()
            return await anext(broadcaster.stream(channel, since, session))

    assert b"It fell over." in live.run(receive)


@pytest.mark.parametrize(("age", "event"), [(60_000, b"stale"), (-60_000, b"heartbeat")])
def test_page_of_a_later_version_reloads_if_it_is_from_before_a_restore(
    run: Run, live: Live, age: int, event: bytes
) -> None:
    channel, session = Channel(NowPage.name, 0, permissions.ALL), SignedInSession("", "")

    async def receive() -> bytes:
        broadcaster = feed.Broadcaster()
        await broadcaster.broadcast()
        since = Since(run.version + 1, read_at=event_ids.milliseconds(now()) - age)
        return await anext(broadcaster.stream(channel, since, session))

    assert b"event: " + event in live.run(receive)


@pytest.mark.parametrize("poll_interval", [60.0])
def test_page_that_is_newer_than_the_last_round_gets_later_changes(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    with open_stream(viewer_http_client) as other:
        factories.change(run, status="retrying")
        next_part(other, "run-r-1", "Retrying")
        # At times another round begins between the page and its stream: the page is older then.
        for _attempt in range(5):
            address = stream_address(viewer_http_client)
            with viewer_http_client.stream("GET", address) as answer:
                stream = messages(answer)
                if next(stream).event == HEARTBEAT_EVENT:
                    factories.change(run, status="approval_wait")
                    next_part(stream, "run-r-1", "Needs approval")
                    break
        else:
            pytest.fail("each page got what it had already")


def test_old_run_that_ends_now_counts_as_new_where_failures_are_listed(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    Run.objects.update(created_at=timezone.now() - timedelta(hours=3))
    address = f"/live/?page=stage&key={run.stage_id}&since={run.version}&query=status%3Dfailure"
    with viewer_http_client.stream("GET", address) as answer:
        stream = messages(answer)
        next(stream)
        factories.change(
            run, status="failure", concluded=True, in_flight=False, concluded_at=timezone.now()
        )
        part = next_part(stream, "run-r-1", "Failed")
        assert part.attributes["hx-swap"] == "outerMorph new:true"


def test_stream_of_invalid_filter_counts_no_new_run(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    address = f"/live/?page=stage&key={run.stage_id}&since={run.version}&query=overdue%3Dyes"
    with viewer_http_client.stream("GET", address) as answer:
        stream = messages(answer)
        next(stream)
        factories.run(run.stage, "r-2")
        assert next_part(stream, "run-r-2").attributes["hx-swap"] == "outerMorph"


@pytest.mark.parametrize("query", ["q=" + "x" * 9_000, "&" * 1_000], ids=["long", "fields"])
@pytest.mark.parametrize("page", ["board", "stage"])
def test_stream_of_a_query_too_long_to_parse_is_not_found(
    page: str, query: str, run: Run, viewer_http_client: httpx.Client
) -> None:
    parameters = {"page": page, "key": run.stage_id if page == "stage" else 0, "query": query}
    with viewer_http_client.stream("GET", "/live/", params=parameters) as answer:
        assert answer.status_code == 404


@fast_polling
def test_removed_stage_is_streamed_as_stale(run: Run, viewer_http_client: httpx.Client) -> None:
    for page, key in (("stage", run.stage_id), ("pipeline", run.stage.pipeline_id)):
        with open_stream(viewer_http_client, page, key) as stream:
            Pipeline.objects.update(removed_at=timezone.now())
            Stage.objects.update(fresh_until=timezone.now() - timedelta(minutes=5))
            next_part(stream, "data-age", "out of date")
        Pipeline.objects.update(removed_at=None)
        Stage.objects.update(fresh_until=timezone.now())


@fast_polling
def test_rendering_error_reloads_that_page_and_updates_others(
    run: Run, viewer_http_client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise ZeroDivisionError

    with open_stream(viewer_http_client, "board") as board, open_stream(viewer_http_client) as now:
        monkeypatch.setattr(BoardPage, "status_parts", fail)
        factories.change(run, status="retrying")
        next_part(now, "run-r-1", "Retrying")
        assert STALE_EVENT in (message.event for message in board)


def test_stream_with_failed_opening_tells_page_to_reload(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    with contextlib.ExitStack() as stack:
        with table_renamed("dashboard_stage"):
            answer = stack.enter_context(
                viewer_http_client.stream("GET", "/live/?page=now&since=7")
            )
            stream = messages(answer)
            first_message = next(stream)
        assert first_message.event == STALE_EVENT
        assert first_message.id.startswith("7-")  # nothing was sent: reconnect
        factories.change(run, status="retrying")
        next_part(stream, "run-r-1", "Retrying")


def test_first_round_tells_pages_that_were_open_before_it_to_reload(
    run: Run, live: Live, viewer: User
) -> None:
    channel, version = Channel("now", 0, permissions.for_user(viewer)), run.version
    session = SignedInSession(session_key("viewer"), viewer.password)

    async def message_after_change() -> bytes:
        broadcaster = feed.Broadcaster(poll_interval=60)
        stream = broadcaster.stream(channel, Since(version), session)
        await anext(stream)
        await run_in_db_thread(factories.change, run, status="retrying")
        rounds = asyncio.create_task(broadcaster.run())
        try:
            async with asyncio.timeout(20):
                return await anext(stream)
        finally:
            rounds.cancel()

    assert b"event: stale" in live.run(message_after_change)


@fast_polling
def test_failed_broadcast_is_repeated(
    run: Run, viewer_http_client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with open_stream(viewer_http_client, "stage", run.stage_id) as stream:
        with contextlib.ExitStack() as stack:
            with transaction.atomic():  # no round is between the change and the failure
                factories.change(run, status="retrying")
                stack.enter_context(table_renamed("dashboard_changecounter"))
            wait_until(lambda: "feed.round_failed" in caplog.text)
        next_part(stream, "run-r-1", "Retrying")


@fast_polling
@pytest.mark.parametrize("heartbeat_interval", [0.0])
def test_idle_stream_sends_heartbeat(run: Run, viewer_http_client: httpx.Client) -> None:
    with open_stream(viewer_http_client) as stream:
        assert HEARTBEAT_EVENT in (message.event for message in stream)


def test_rolled_back_change_is_not_streamed(run: Run, viewer_http_client: httpx.Client) -> None:
    with open_stream(viewer_http_client) as stream:
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            factories.change(run, status="failure")
            raise ZeroDivisionError
        factories.change(run, status="retrying")
        next_part(stream, "run-r-1", "Retrying")


@fast_polling
def test_stream_marks_run_and_stage_watched(run: Run, viewer_http_client: httpx.Client) -> None:
    Stage.objects.update(last_viewed_at=None)
    with (
        open_stream(viewer_http_client, "stage", run.stage_id),
        open_stream(viewer_http_client, "run", run.pk),
    ):
        deadline = time.monotonic() + WAIT_TIMEOUT
        while not Run.objects.filter(
            last_viewed_at__isnull=False, stage__last_viewed_at__isnull=False
        ).exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_stream_ends_when_broadcaster_closes(
    run: Run, live: Live, viewer_http_client: httpx.Client
) -> None:
    with open_stream(viewer_http_client) as stream:
        live.loop.call_soon_threadsafe(live.feed.close)
        assert all(message.event == HEARTBEAT_EVENT or message.parts for message in stream)


def test_disconnected_viewer_is_removed(
    run: Run, live: Live, viewer_http_client: httpx.Client
) -> None:
    with open_stream(viewer_http_client):
        assert live.feed.hub.viewers == 1
    deadline = time.monotonic() + WAIT_TIMEOUT
    while live.feed.hub.viewers:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stream_without_session_is_denied(live: Live) -> None:
    with httpx.Client(base_url=live.base_url) as stranger:
        answer = stranger.get("/live/?page=now", headers={"HX-Request": "true"})
        assert answer.status_code == 401
        assert stranger.get("/live/?page=now").status_code == 302


@pytest.mark.parametrize(
    "query", ["", "page=elsewhere", "page=stage&key=1234567", "page=run", "page=now&key=7", "key=x"]
)
def test_stream_of_unknown_page_returns_404(query: str, viewer_http_client: httpx.Client) -> None:
    assert viewer_http_client.get(f"/live/?{query}").status_code == 404


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one process only")
@pytest.mark.parametrize("poll_interval", [WAIT_TIMEOUT * 2.0], ids=["notifications only"])
def test_stream_continues_after_broken_listen_connection(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    def listeners() -> list[int]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pid FROM pg_stat_activity"
                " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
            )
            return [pid for (pid,) in cursor.fetchall()]

    with open_stream(viewer_http_client) as stream:
        factories.change(run, status="queued")
        next_part(stream, "run-r-1", "Queued")  # so it listens
        # The listener of the test before may not have ended yet.
        [listener] = wait_until(lambda: pids if len(pids := listeners()) == 1 else [])
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [listener])
            assert cursor.fetchall() == [(True,)]
        factories.change(run, status="retrying")  # unnoticed, until it listens again
        next_part(stream, "run-r-1", "Retrying")


@pytest.mark.parametrize("poll_interval", [1000.0], ids=["no polling"])  # a poll would fail
def test_second_up_to_date_viewer_needs_no_page_rendering(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    with open_stream(viewer_http_client) as first, contextlib.ExitStack() as stack:
        # At times another round of the same change comes while no read succeeds: it fails, so the
        # next viewer has to read. All is as before once a later change has been sent.
        for attempt in range(5):
            factories.change(run, status="retrying", name=f"Nightly {attempt}")
            next_part(first, "run-r-1", f"Nightly {attempt}")
            with table_renamed("dashboard_stage"):  # no read succeeds
                with viewer_http_client.stream("GET", "/live/?page=now&since=0") as answer:
                    assert next(messages(answer)).event == STALE_EVENT
                with contextlib.suppress(AssertionError):
                    second = stack.enter_context(open_stream(viewer_http_client))
                    break
        else:
            pytest.fail("the page was rendered for each viewer")
        factories.change(run, status="approval_wait")
        next_part(second, "run-r-1", "Needs approval")


@pytest.mark.parametrize("poll_interval", [600.0])
def test_stream_opened_after_change_shares_no_earlier_read(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    version = ChangeCounter.latest()
    with open_stream(viewer_http_client, since=version) as first:
        factories.change(run, status="retrying")
        next_part(first, "run-r-1", "Retrying")
        address = f"/live/?page=now&since={version}"
        with viewer_http_client.stream("GET", address) as answer:
            assert "Retrying" in next(messages(answer)).parts["run-r-1"].text()


def test_changed_runs_are_read_once_and_only_if_a_page_needs_them(run: Run) -> None:
    version = ChangeCounter.latest()
    factories.change(run, status="retrying")
    with CaptureQueriesContext(connection) as queries:
        change_set = changes.load_changes(version)
        assert len(queries) == 1  # the version
        assert change_set.runs == change_set.runs == [run]
        assert len(queries) == 2
    assert not change_set.is_truncated


def test_run_that_changes_again_while_a_change_is_sent_comes_with_the_next_one(run: Run) -> None:
    version = ChangeCounter.latest()
    factories.change(run, status="retrying")
    first = changes.load_changes(version)
    factories.change(run, status="running")
    assert first.runs == []
    assert changes.load_changes(first.version).runs == [run]


def test_open_run_page_offers_acknowledgement_once_the_run_waits_for_approval(
    run: Run, viewer_http_client: httpx.Client
) -> None:
    factories.change(run, status="approval_wait")
    with open_stream(viewer_http_client, "run", run.pk) as stream:
        overdue_checker.check_runs(timezone.now())
        next_part(stream, "run-r-1", selector="[data-acknowledgements] [hx-get]")


def test_open_pages_show_that_an_acknowledgement_has_expired(
    run: Run, viewer: User, viewer_http_client: httpx.Client
) -> None:
    factories.change(run, status="failure", concluded=True, in_flight=False)
    acknowledgements.acknowledge(Run.objects.with_stage().get(), viewer)
    with (
        open_stream(viewer_http_client, "run", run.pk) as run_page,
        open_stream(viewer_http_client, "stage", run.stage_id) as stage_page,
        open_stream(viewer_http_client, "board") as board,
    ):
        Run.objects.update(concluded_at=timezone.now() - MAX_FAILURE_AGE)
        acknowledgements.end_expired(timezone.now())
        # A round in between shows that the failure is a day old, and not yet the end.
        next_part(run_page, "run-r-1", "Acknowledged by viewer from")
        while "viewer" in next_part(stage_page, "run-r-1").text():
            pass
        while "viewer" in next_part(board, f"stage-{run.stage_id}").text():
            pass
