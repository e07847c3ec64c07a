"""What an open page hears: through the real server, with what the browser would be sent."""

import contextlib
import time
from datetime import timedelta
from typing import NoReturn
from uuid import uuid4

import httpx
import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone
from selectolax.lexbor import LexborHTMLParser

from dashboard import aborts
from dashboard.aborts.severity import Level
from dashboard.models import ChangeCounter, Pipeline, Run, Stage
from dashboard.web.live import feed
from dashboard.web.live import parts as live_parts
from tests.support import factories
from tests.support.databases import without
from tests.support.flights import eventually
from tests.support.live import PATIENCE, Live
from tests.support.stream import about, beside, brisk, listening, messages

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("page", ["/", "/board/", "/aborts/", "/aborts/lists/", "/status/"])
def test_a_page_hears_of_what_happens_from_its_own_making_on(
    page: str, run: Run, at_desk: httpx.Client
) -> None:
    stream = LexborHTMLParser(at_desk.get(page).text).css_first("#stream")
    assert stream is not None
    assert (stream.attributes["hx-sse:connect"] or "").endswith(f"since={run.version}")


@pytest.fixture
def run(live: Live) -> Run:
    return factories.run(factories.stage(), "r-1", name="Nightly")


@pytest.fixture
def at_desk(live: Live, viewer: User) -> httpx.Client:
    return live.person("viewer")


def test_a_change_is_brought_as_the_row_that_the_page_would_show(
    run: Run, at_desk: httpx.Client
) -> None:
    with listening(at_desk) as stream:
        factories.change(run, status="approval_wait")
        part = about(stream, "run-r-1", "Needs approval")
    assert part.attributes["hx-swap"] == "outerMorph"
    assert part.attributes["data-news"] == "approval_wait"


def test_the_headers_keep_proxies_and_compression_away(run: Run, at_desk: httpx.Client) -> None:
    with at_desk.stream("GET", "/live/?page=now&since=0") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["content-encoding"] == "identity"


def test_what_was_missed_is_brought_on_return(run: Run, at_desk: httpx.Client) -> None:
    seen = ChangeCounter.latest()
    factories.change(run, status="failure", concluded=True, in_flight=False)
    address = f"/live/?page=now&since={seen}"
    with at_desk.stream("GET", address) as answer:
        opening = next(messages(answer))
    assert "Failed" in opening.parts["run-r-1"].text()
    assert opening.id == str(ChangeCounter.latest())
    # The browser says by a header what it has heard since it got the page.
    with at_desk.stream("GET", address, headers={"Last-Event-ID": opening.id}) as answer:
        assert "run-r-1" not in next(messages(answer)).parts


@pytest.mark.parametrize("since", ["", "no-number", "99999999999", "-1", "٣"])
def test_a_page_whose_version_means_nothing_here_fetches_itself(
    since: str, run: Run, at_desk: httpx.Client
) -> None:
    with at_desk.stream("GET", "/live/", params={"page": "now", "since": since}) as answer:
        stream = messages(answer)
        next(stream)
        assert next(stream).event == feed.STALE


def test_after_too_many_changes_pages_fetch_themselves(run: Run, at_desk: httpx.Client) -> None:
    seen = ChangeCounter.latest()
    for _ in range(live_parts.MOST + 1):
        factories.run(run.stage)
    with at_desk.stream("GET", f"/live/?page=now&since={seen}") as answer:
        stream = messages(answer)
        assert len(next(stream).parts) < live_parts.MOST + 15
        assert next(stream).event == feed.STALE


def test_a_page_of_the_past_is_no_news(run: Run, at_desk: httpx.Client) -> None:
    seen = ChangeCounter.latest()
    old = timezone.now() - timedelta(days=3)
    for number in range(live_parts.MOST + 1):
        factories.run(run.stage, f"old-{number}", status="success", created_at=old)
    factories.change(run, status="retrying")
    with at_desk.stream("GET", f"/live/?page=now&since={seen}") as answer:
        opening = next(messages(answer))
    assert "run-r-1" in opening.parts
    assert not [part for part in opening.parts if part.startswith("run-old")]


def test_a_page_hears_only_of_what_it_is_about(run: Run, at_desk: httpx.Client) -> None:
    other = factories.run(factories.stage("Staging"), "r-2")
    elsewhere = factories.run(factories.stage(of=factories.pipeline("ledger")), "r-3")
    for page, key in (
        ("stage", run.stage_id),
        ("pipeline", run.stage.pipeline_id),
        ("run", run.pk),
    ):
        with listening(at_desk, page, key) as stream:
            factories.change(elsewhere, status="retrying")
            if page != "pipeline":
                factories.change(other, status="retrying")
            factories.change(run, status="retrying")
            heard: set[str] = set()
            for message in stream:
                heard |= message.parts.keys()
                if "run-r-1" in heard:
                    break
        assert not heard & {"run-r-2", "run-r-3"}, page


def test_the_board_hears_of_cells(run: Run, at_desk: httpx.Client) -> None:
    with listening(at_desk, "board") as stream:
        factories.change(run, status="retrying")
        about(stream, f"stage-{run.stage_id}", "Retrying")


def test_a_runs_page_hears_its_whole_card(run: Run, at_desk: httpx.Client) -> None:
    with listening(at_desk, "run", run.pk) as stream:
        factories.change(run, status="aborting")
        card = about(stream, "run-r-1", "Aborting")
    assert card.css_first("[data-verdict]") is not None
    assert card.css_first("[data-steps]") is not None


def test_the_audit_hears_of_acts_that_move_on(
    run: Run, manager: User, at_desk: httpx.Client
) -> None:
    act = factories.abort(run, manager, "accepted")
    with listening(at_desk, "aborts") as stream:
        factories.change(run, status="aborting")
        about(stream, f"act-{act.pk}", "Under way")


@brisk
@pytest.mark.parametrize("page", ["aborts", "lists"])
def test_a_new_act_changes_the_shape_of_the_lists_of_acts(
    page: str, run: Run, manager: User, at_desk: httpx.Client
) -> None:
    before = shape(at_desk, page)
    with listening(at_desk, page) as stream:
        if page == "lists":
            aborts.request_many([run.pk], aborts.Press(manager, "Stuck"), uuid4())
        else:
            factories.abort(run, manager)
        line = about(stream, "as-of").css_first("p")
        while line is not None and line.attributes["data-shape"] == before:
            line = about(stream, "as-of").css_first("p")


@brisk
def test_the_status_page_hears_all_it_shows(run: Run, at_desk: httpx.Client) -> None:
    with listening(at_desk, "status") as stream:
        Stage.objects.update(error="forbidden", error_message="Permission was taken away.")
        about(stream, "status", "Permission was taken away.")


def test_what_goes_on_around_a_run_comes_without_its_steps(run: Run, at_desk: httpx.Client) -> None:
    factories.change(run, status="aborting", aborting_level=Level.RED)
    with listening(at_desk, "run", run.pk) as stream:
        factories.run(run.stage, "r-2", name="Hotfix", status="queued", started_at=None)
        brought = beside(stream, "around")
    assert "run-r-1" not in brought
    assert "Hotfix" in brought["around"].text()
    assert "Hotfix" in brought["next-steps"].text()
    assert "1 run waits behind it" in brought["verdict"].text()
    assert "Waiting behind it: Hotfix (r-2)" in brought["hand-over"].text()


def test_where_a_run_of_its_stage_has_ended_the_whole_card_comes(
    run: Run, at_desk: httpx.Client
) -> None:
    # What is usual is learned as runs end, and stands at each step.
    other = factories.run(run.stage, "r-2", name="Hotfix")
    with listening(at_desk, "run", run.pk) as stream:
        now = timezone.now()
        factories.change(other, status="success", concluded=True, in_flight=False, concluded_at=now)
        about(stream, "run-r-1")


def test_counts_and_the_title_follow(run: Run, at_desk: httpx.Client) -> None:
    with listening(at_desk) as stream:
        factories.run(run.stage, status="approval_wait")
        said = ""
        while said != "Needs approval · Now (2) · Release flows":
            title = about(stream, "title").css_first("span")
            assert title is not None
            said = title.attributes["data-title"] or ""


@brisk
def test_trouble_with_northflank_comes_and_goes(run: Run, at_desk: httpx.Client) -> None:
    with listening(at_desk, "stage", run.stage_id) as stream:
        factories.trouble("It fell over.", timezone.now())
        about(stream, "trouble", "It fell over.")


@brisk
def test_a_stages_own_trouble_comes_to_its_page_and_to_the_board(
    run: Run, at_desk: httpx.Client
) -> None:
    with listening(at_desk, "stage", run.stage_id) as page, listening(at_desk, "board") as board:
        Stage.objects.update(error="forbidden", error_message="Permission was taken away.")
        about(page, "stage-error", "Permission was taken away.")
        about(board, "as-of", "1 stage can’t be read.")


def shape(person: httpx.Client, page: str, key: int = 0) -> str:
    """The shape that a page has now, as its stream says first."""
    with person.stream("GET", f"/live/?page={page}&key={key}") as answer:
        part = next(messages(answer)).parts["as-of"].css_first("p")
    assert part is not None
    return part.attributes["data-shape"] or ""


@pytest.mark.parametrize("page", ["now", "board", "pipeline", "stage"])
def test_what_only_the_whole_page_can_show_changes_its_shape(
    page: str, run: Run, at_desk: httpx.Client
) -> None:
    key = {"pipeline": run.stage.pipeline_id, "stage": run.stage_id}.get(page, 0)
    address = {
        "now": "/",
        "board": "/board/",
        "pipeline": factories.address(run.stage.pipeline),
        "stage": factories.address(run.stage),
    }[page]
    seen = [shape(at_desk, page, key)]
    line = LexborHTMLParser(at_desk.get(address).text).css_first("#as-of")
    assert line is not None
    assert line.attributes["data-shape"] == seen[0]
    factories.change(run, status="retrying")
    assert shape(at_desk, page, key) == seen[0]  # painted without it

    Stage.objects.update(has_flow=None)
    seen.append(shape(at_desk, page, key))
    Stage.objects.update(synced_at=None)
    seen.append(shape(at_desk, page, key))
    if page in {"now", "board"}:
        factories.stage(of=factories.pipeline("brand-new"))
        seen.append(shape(at_desk, page, key))
    if page == "board":
        Stage.objects.update(error="forbidden", error_message="Permission was taken away.")
        seen.append(shape(at_desk, page, key))
    if page == "now":  # a failure that grew old leaves the page by itself
        factories.run(run.stage, status="failure", created_at=timezone.now() - timedelta(days=3))
        seen.append(shape(at_desk, page, key))
    assert len(set(seen)) == len(seen)


def test_now_announces_only_runs_that_it_would_show(run: Run, at_desk: httpx.Client) -> None:
    with listening(at_desk) as stream:
        factories.run(run.stage, "r-2", status="success")
        assert "data-news" not in about(stream, "run-r-2").attributes
        factories.run(run.stage, "r-3", status="failure")
        assert about(stream, "run-r-3").attributes["data-news"] == "failure"


@brisk
def test_an_empty_page_says_how_sure_it_is(run: Run, at_desk: httpx.Client) -> None:
    Run.objects.update(in_flight=False, concluded=True, status="success")
    with listening(at_desk) as stream:
        Stage.objects.update(promised_at=timezone.now() - timedelta(minutes=5))
        about(stream, "nothing-in-flight", "when Northflank was last read")


@pytest.mark.parametrize("page", ["now", "board"])
@brisk
def test_an_open_page_loses_its_line_when_all_is_read(
    page: str, run: Run, at_desk: httpx.Client
) -> None:
    unread = factories.stage("Development", synced_at=None, promised_at=None)
    with listening(at_desk, page) as stream:
        Stage.objects.filter(pk=unread.pk).update(error="x", error_message="No.")
        line = about(stream, "as-of", "can’t be read")
        assert line.css_first("[data-incomplete]") is not None
        now = timezone.now()
        Stage.objects.filter(pk=unread.pk).update(synced_at=now, error="", error_message="")
        message = beside(stream, "title")
        assert "Incomplete" not in message["title"].html
        assert message["as-of"].css_first("[data-incomplete]") is None


@pytest.mark.parametrize("page", ["now", "board", "pipeline", "stage", "run"])
def test_each_tab_says_when_northflank_cannot_be_read(
    page: str, run: Run, at_desk: httpx.Client
) -> None:
    keys = {"pipeline": run.stage.pipeline_id, "stage": run.stage_id, "run": run.pk}
    factories.trouble("It fell over.")
    with at_desk.stream("GET", f"/live/?page={page}&key={keys.get(page, 0)}") as answer:
        title = next(messages(answer)).parts["title"].css_first("span")
    assert title is not None
    assert (title.attributes["data-title"] or "").startswith("Can’t see · ")


@brisk
def test_a_page_whose_run_is_deleted_is_told_and_silences_nobody(
    run: Run, at_desk: httpx.Client
) -> None:
    other = factories.run(run.stage, "r-2")
    with listening(at_desk, "run", run.pk) as page, listening(at_desk) as now:
        Run.objects.filter(pk=run.pk).delete()
        about(page, "as-of", "no longer known here")
        factories.change(other, status="retrying")
        about(now, "run-r-2", "Retrying")


@brisk
def test_a_stage_that_is_gone_grows_old_before_ones_eyes(run: Run, at_desk: httpx.Client) -> None:
    for page, key in (("stage", run.stage_id), ("pipeline", run.stage.pipeline_id)):
        with listening(at_desk, page, key) as stream:
            Pipeline.objects.update(gone_at=timezone.now())
            Stage.objects.update(promised_at=timezone.now() - timedelta(minutes=5))
            about(stream, "as-of", "older than it should be")
        Pipeline.objects.update(gone_at=None)
        Stage.objects.update(promised_at=timezone.now())


@brisk
def test_a_page_that_cannot_be_told_fetches_itself_and_the_others_are_told(
    run: Run, at_desk: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise ZeroDivisionError

    with listening(at_desk, "board") as board, listening(at_desk) as now:
        broken = live_parts.PAGES | {"board": live_parts._Page(fail, fail)}
        monkeypatch.setattr(live_parts, "PAGES", broken)
        factories.change(run, status="retrying")
        about(now, "run-r-1", "Retrying")
        assert feed.STALE in (message.event for message in board)


def test_a_page_that_cannot_be_told_from_the_start_fetches_itself_too(
    run: Run, at_desk: httpx.Client
) -> None:
    with contextlib.ExitStack() as ends:
        with without("dashboard_stage"):
            answer = ends.enter_context(at_desk.stream("GET", "/live/?page=now&since=7"))
            stream = messages(answer)
            opening = next(stream)
        assert (opening.event, opening.id) == (feed.STALE, "7")  # nothing was told: ask anew
        factories.change(run, status="retrying")
        about(stream, "run-r-1", "Retrying")


@brisk
def test_a_round_that_fails_is_made_up_for(
    run: Run, at_desk: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with listening(at_desk, "stage", run.stage_id) as stream:
        with without("dashboard_stage"):
            factories.change(run, status="retrying")
            eventually(lambda: "feed.round_failed" in caplog.text)
        about(stream, "run-r-1", "Retrying")


def test_each_hears_what_they_may_do(
    run: Run, live: Live, at_desk: httpx.Client, manager: User
) -> None:
    with listening(at_desk) as viewer, listening(live.person("manager")) as releaser:
        factories.change(run, status="retrying")
        theirs = about(viewer, "run-r-1", "Retrying")
        ours = about(releaser, "run-r-1", "Retrying")
    assert theirs.css_first("[data-abort][disabled]") is not None
    assert ours.css_first("[data-abort]:not([disabled])") is not None


@brisk
@pytest.mark.parametrize("silence", [0.0])
def test_silence_is_broken_so_that_proxies_and_browsers_know_the_line_is_alive(
    run: Run, at_desk: httpx.Client
) -> None:
    with listening(at_desk) as stream:
        assert feed.ALIVE in (message.event for message in stream)


def test_what_is_rolled_back_is_not_told(run: Run, at_desk: httpx.Client) -> None:
    with listening(at_desk) as stream:
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            factories.change(run, status="failure")
            raise ZeroDivisionError
        factories.change(run, status="retrying")
        about(stream, "run-r-1", "Retrying")


@brisk
def test_a_look_by_stream_is_a_look(run: Run, at_desk: httpx.Client) -> None:
    Stage.objects.update(watched_at=None)
    with listening(at_desk, "stage", run.stage_id), listening(at_desk, "run", run.pk):
        until = time.monotonic() + PATIENCE
        while not Run.objects.filter(
            watched_at__isnull=False, stage__watched_at__isnull=False
        ).exists():
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_stream_ends_when_the_process_does(run: Run, live: Live, at_desk: httpx.Client) -> None:
    with listening(at_desk) as stream:
        live.loop.call_soon_threadsafe(live.feed.close)
        assert all(message.event == feed.ALIVE or message.parts for message in stream)


def test_a_viewer_who_leaves_is_forgotten(run: Run, live: Live, at_desk: httpx.Client) -> None:
    with listening(at_desk):
        assert live.feed.hub.viewers == 1
    until = time.monotonic() + PATIENCE
    while live.feed.hub.viewers:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_without_a_session_there_is_no_stream(live: Live) -> None:
    with httpx.Client(base_url=live.base_url) as stranger:
        answer = stranger.get("/live/?page=now", headers={"HX-Request": "true"})
        assert answer.status_code == 401
        assert stranger.get("/live/?page=now").status_code == 302


@pytest.mark.parametrize(
    "query", ["", "page=elsewhere", "page=stage&key=1234567", "page=run", "page=now&key=7", "key=x"]
)
def test_a_page_that_does_not_exist_has_no_stream(query: str, at_desk: httpx.Client) -> None:
    assert at_desk.get(f"/live/?{query}").status_code == 404


def test_a_stream_is_only_read(at_desk: httpx.Client) -> None:
    headers = {"X-CSRFToken": at_desk.cookies["csrftoken"]}
    assert at_desk.post("/live/?page=now", headers=headers).status_code == 405


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one process only")
@pytest.mark.parametrize("beat", [PATIENCE * 2.0], ids=["bell only"])
def test_the_line_to_the_database_may_break(run: Run, at_desk: httpx.Client) -> None:
    with listening(at_desk) as stream:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
            )
            assert cursor.fetchall() == [(True,)]
        factories.change(run, status="retrying")  # unheard, until it listens again
        about(stream, "run-r-1", "Retrying")


def test_who_comes_second_and_missed_nothing_costs_no_reading(
    run: Run, at_desk: httpx.Client
) -> None:
    with listening(at_desk) as first:
        factories.change(run, status="retrying")
        about(first, "run-r-1", "Retrying")
        with contextlib.ExitStack() as ends:
            with without("dashboard_stage"):  # no reading succeeds
                second = ends.enter_context(listening(at_desk))
                with at_desk.stream("GET", "/live/?page=now&since=0") as answer:
                    assert next(messages(answer)).event == feed.STALE
            factories.change(run, status="approval_wait")
            about(second, "run-r-1", "Needs approval")
