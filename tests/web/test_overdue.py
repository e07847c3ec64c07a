"""What is overdue shows on every page, and a run's time stands against its usual."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from selectolax.lexbor import LexborNode

from dashboard.accounts import permissions
from dashboard.models import Run, Stage, StageTiming
from dashboard.models.typical_duration import Overdue
from dashboard.runs.overdue import Why
from dashboard.sync import mirror, overdue_checker
from dashboard.web.components import run_row
from dashboard.web.pages.run import card
from tests.support import factories
from tests.support.html import See, one, words
from tests.support.world import api_run

MINUTE = timedelta(minutes=1)


@pytest.fixture
def usual(stage: Stage) -> StageTiming:
    """Six to nine minutes: a run is overdue after nine, and far overdue after eighteen."""
    return factories.timing(stage)


def flying(stage: Stage, minutes: float = 4, status: str = "running", **fields: Any) -> Run:
    """A run that started so many minutes ago, a minute after it was made."""
    began = timezone.now() - minutes * MINUTE
    usual = {"created_at": began - MINUTE, "started_at": began}
    return factories.run(stage, status=status, **usual | fields)


def late(stage: Stage, level: Overdue = Overdue.YES, why: str = Why.RUN, **fields: Any) -> Run:
    return flying(stage, 12, overdue=level, overdue_why=why, **fields)


def row_of(see: See, run: Run, address: str = "/") -> LexborNode:
    return one(see(address), f'tr[data-run="{run.run_id}"]')


def times(bar: LexborNode) -> tuple[datetime, int, int]:
    """From when a bar grows, and after how many seconds it is late, and very late."""
    told = bar.attributes
    assert told["data-since"]
    assert told["data-late-after"]
    assert told["data-very-late-after"]
    since = datetime.fromisoformat(told["data-since"])
    return since, int(told["data-late-after"]), int(told["data-very-late-after"])


# --- The time against its usual -----------------------------------------------------------------


def test_a_row_says_in_words_what_is_usual(see: See, usual: StageTiming) -> None:
    cell = one(row_of(see, flying(usual.stage)), "td.took")
    assert words(one(cell, ".usually")) == "usually 6 to 9 min"


def test_a_bar_ends_where_its_run_is_far_overdue(see: See, usual: StageTiming) -> None:
    run = flying(usual.stage)
    bar = one(row_of(see, run), "svg.pace")
    assert times(bar) == (run.started_at, 540, 1080)


def test_its_tick_is_at_the_median(see: See, usual: StageTiming) -> None:
    tick = one(row_of(see, flying(usual.stage)), "svg.pace .tick")
    assert tick.attributes["d"] == "M33 0v8"


def test_a_queued_run_stands_against_the_usual_wait(see: See, usual: StageTiming) -> None:
    run = flying(usual.stage, status="queued", started_at=None)
    cell = one(row_of(see, run), "td.took")
    assert words(one(cell, ".usually")) == "usually waits 40 to 90 s"
    assert times(one(cell, "svg.pace")) == (run.created_at, 100, 120)


def waiting(stage: Stage) -> Run:
    """A run that has waited for people for three minutes."""
    since = timezone.now() - 3 * MINUTE
    approval = factories.node(
        "Approval", label="sign-off", ref="sign-off", status="approval_wait", started_at=since
    )
    tree = msgspec.to_builtins(factories.node("Workflow", steps=(approval,)))
    return flying(stage, 50, "approval_wait", steps=tree, status_since=since)


def test_a_wait_for_people_stands_against_how_long_people_take(see: See, stage: Stage) -> None:
    factories.timing(stage, steps={"sign-off": [300, 1200]})
    cell = one(row_of(see, waiting(stage)), "td.took")
    assert words(one(cell, ".usually")) == "people usually take 5 to 20 min"
    since, late_after, _ = times(one(cell, "svg.pace"))
    assert timezone.now() - since < 4 * MINUTE
    assert late_after == 1200


def test_a_row_says_once_how_long_people_take(see: See, stage: Stage) -> None:
    factories.timing(stage, steps={"sign-off": [300, 1200]})
    run = waiting(stage)
    factories.change(run, step="sign-off", step_since=timezone.now() - 3 * MINUTE)
    row = row_of(see, run)
    assert words(one(row, "p.step")).startswith("sign-off, ")
    assert words(row).count("5 to 20 min") == 1


@pytest.mark.parametrize(
    ("migrate", "said"), [([360, 540], 0), ([350, 550], 0), ([120, 240], 1)], ids=str
)
def test_a_row_says_what_a_step_usually_takes_where_it_is_something_else(
    migrate: list[int], said: int, see: See, stage: Stage
) -> None:
    factories.timing(stage, steps={"migrate": migrate})
    since = timezone.now() - 2 * MINUTE
    step = factories.node("JobRun", ref="migrate", status="waiting", started_at=since)
    tree = msgspec.to_builtins(factories.node("Workflow", steps=(step,)))
    run = flying(stage, steps=tree, step="migrate", step_key="migrate", step_since=since)
    row = row_of(see, run)
    assert words(one(row, "p.step")).count("usually") == said
    assert words(one(row, ".usually")) == "usually 6 to 9 min"


def test_a_card_says_what_is_usual_of_the_step_as_of_the_run(see: See, stage: Stage) -> None:
    factories.timing(stage, steps={"sign-off": [300, 1200]})
    html = see(factories.address(waiting(stage)))
    assert "(usually 5 to 20 min)" in words(one(html, "[data-verdict]"))
    assert words(one(html, ".state .usually")) == "people usually take 5 to 20 min"


def test_steps_are_not_held_against_what_was_learned_where_people_say_otherwise(
    see: See, stage: Stage
) -> None:
    factories.timing(stage, steps={"migrate": [120, 240]}, said_median=7200)
    since = timezone.now() - 30 * MINUTE
    step = factories.node("JobRun", ref="migrate", status="waiting", started_at=since)
    tree = msgspec.to_builtins(factories.node("Workflow", steps=(step,)))
    run = flying(stage, 31, steps=tree, step="migrate", step_key="migrate", step_since=since)
    overdue_checker.mark(timezone.now())
    html = see(factories.address(run))
    assert words(one(html, ".state .usually")) == "usually about 2 h"
    assert html.css(".late, [data-late='1'], [data-late='2']") == []
    assert words(html).count("2 to 4 min") == 0


def test_where_nobody_knows_how_long_people_take_there_is_no_bar(
    see: See, usual: StageTiming
) -> None:
    assert row_of(see, waiting(usual.stage)).css(".pace, .usually") == []


def test_time_that_people_took_is_not_counted_as_work(see: See, usual: StageTiming) -> None:
    began = timezone.now() - 30 * MINUTE
    approval = factories.node(
        "Approval", status="success", started_at=began, ended_at=began + 25 * MINUTE
    )
    build = factories.node(status="waiting", started_at=began + 25 * MINUTE)
    tree = msgspec.to_builtins(factories.node("Workflow", steps=(approval, build)))
    cell = one(row_of(see, flying(usual.stage, 30, steps=tree)), "td.took")
    since, _, _ = times(one(cell, "svg.pace"))
    assert timezone.now() - since < 6 * MINUTE
    assert words(one(cell, ".usually")) == "usually 6 to 9 min of work"


@pytest.mark.parametrize("status", ["success", "failure"])
def test_a_run_that_has_ended_has_no_bar(status: str, see: See, usual: StageTiming) -> None:
    run = factories.run(usual.stage, status=status)
    assert row_of(see, run, factories.address(usual.stage)).css(".pace, .usually") == []


def test_where_nothing_is_usual_there_is_no_bar(see: See, run: Run) -> None:
    assert row_of(see, run).css(".pace, .usually") == []


def test_too_few_successes_give_no_bar(see: See, stage: Stage) -> None:
    factories.timing(stage, run_median=None, run_p95=None)
    assert row_of(see, flying(stage)).css(".pace, .usually") == []


def test_a_runs_own_page_has_its_bar(see: See, usual: StageTiming) -> None:
    state = one(see(factories.address(flying(usual.stage))), ".state")
    assert one(state, "svg.pace")
    assert words(one(state, ".usually")) == "usually 6 to 9 min"


def test_a_row_says_the_same_whenever_it_is_read(usual: StageTiming, manager: User) -> None:
    run = Run.objects.with_place().get(pk=late(usual.stage).pk)
    rights = permissions.rights(manager)
    first = run_row.html_of_loaded([run], rights)
    cache.clear()
    with_time = run_row.html_of_loaded([run], rights)
    assert first == with_time


# --- The mark -----------------------------------------------------------------------------------

LEVELS = [(Overdue.YES, "Overdue", "g-overdue"), (Overdue.VERY, "Far overdue", "g-far-overdue")]


@pytest.mark.parametrize(("level", "word", "glyph"), LEVELS)
def test_a_row_is_marked_by_word_and_shape(
    level: Overdue, word: str, glyph: str, see: See, usual: StageTiming
) -> None:
    row = row_of(see, late(usual.stage, level))
    assert row.attributes["data-overdue"] == str(int(level))
    mark = one(row, "td.status .late")
    assert words(mark) == word
    assert one(mark, "use").attributes["href"] == f"#{glyph}"


def test_a_row_says_why_in_short(see: See, usual: StageTiming) -> None:
    row = row_of(see, late(usual.stage, Overdue.VERY))
    assert words(one(row, ".late-why")) == "It takes far longer than usual."


def test_a_limit_is_told_where_nothing_is_usual(see: See, stage: Stage) -> None:
    row = row_of(see, late(stage, why=Why.QUEUE, started_at=None, status="queued"))
    assert words(one(row, ".late-why")) == "It has waited for its turn for more than 15 min."


@pytest.mark.parametrize("page", ["run", "pipeline", "board"])
def test_every_page_marks_it(page: str, see: See, usual: StageTiming) -> None:
    run = late(usual.stage)
    address = {
        "run": factories.address(run),
        "pipeline": factories.address(usual.stage.pipeline),
        "board": "/board/",
    }
    marked = one(see(address[page]), '[data-overdue="1"]')
    assert words(one(marked, ".late")) == "Overdue"


def test_the_board_marks_an_older_run_too(see: See, usual: StageTiming) -> None:
    late(usual.stage, Overdue.VERY)
    flying(usual.stage, 1)
    assert words(one(see("/board/"), "td .late")) == "Far overdue"


@pytest.mark.parametrize("page", ["/", "/board/", "stage", "pipeline", "run"])
def test_what_is_in_time_is_marked_nowhere(page: str, see: See, usual: StageTiming) -> None:
    run = flying(usual.stage)
    of = {"stage": run.stage, "pipeline": run.stage.pipeline, "run": run}.get(page)
    html = see(factories.address(of) if of else page)
    assert html.css('.late, [data-overdue="1"], [data-overdue="2"]') == []


def test_a_run_that_northflank_lost_is_overdue_no_more(see: See, usual: StageTiming) -> None:
    run = late(usual.stage, in_flight=False, gone_at=timezone.now())
    assert row_of(see, run, factories.address(usual.stage)).css(".late") == []


# --- What comes first ---------------------------------------------------------------------------


def order(see: See) -> list[str | None]:
    return [row.attributes["data-run"] for row in see("/").css("tr[data-run]")]


def test_now_begins_with_the_furthest_overdue(see: See, usual: StageTiming) -> None:
    young = flying(usual.stage, 1)
    somewhat = late(usual.stage)
    far = late(usual.stage, Overdue.VERY, created_at=timezone.now() - timedelta(days=2))
    old = flying(usual.stage, 8)
    assert order(see) == [run.run_id for run in (far, somewhat, young, old)]


def title(see: See, address: str) -> str:
    return words(one(see(address), "head title"))


@pytest.mark.parametrize("page", ["/", "/board/", "stage", "pipeline", "run"])
def test_a_tabs_title_begins_with_it(page: str, see: See, usual: StageTiming) -> None:
    run = late(usual.stage)
    of = {"stage": run.stage, "pipeline": run.stage.pipeline, "run": run}.get(page)
    assert title(see, factories.address(of) if of else page).startswith("Overdue · ")


def test_a_title_says_how_far(see: See, usual: StageTiming) -> None:
    late(usual.stage)
    late(usual.stage, Overdue.VERY)
    assert title(see, "/").startswith("Far overdue · Now (2)")


@pytest.mark.parametrize("status", ["retrying", "aborting", "approval_wait"])
def test_it_comes_before_what_is_less_urgent(status: str, see: See, usual: StageTiming) -> None:
    flying(usual.stage, status=status)
    late(usual.stage)
    assert title(see, "/").startswith("Overdue · ")


def test_a_failure_comes_after_it(see: See, usual: StageTiming) -> None:
    factories.run(usual.stage, status="failure")
    assert title(see, "/").startswith("Failed · ")
    late(usual.stage)
    assert title(see, "/").startswith("Overdue · ")


# --- What it costs ------------------------------------------------------------------------------


def queries(client: Client, address: str) -> int:
    cache.clear()  # no row is rendered yet
    with CaptureQueriesContext(connection) as seen:
        assert client.get(address).status_code == 200
    return len(seen)


@pytest.mark.parametrize("page", ["/", "stage"])
def test_a_hundred_rows_cost_no_more_queries_than_one(
    page: str, usual: StageTiming, at_desk: Client
) -> None:
    tree = msgspec.to_builtins(factories.node("Workflow", steps=(factories.node(),)))
    late(usual.stage, steps=tree)
    address = factories.address(usual.stage) if page == "stage" else page
    at_desk.get(address)  # notes the interest, which it does once in a while
    few = queries(at_desk, address)
    for number in range(99):
        other = factories.stage(of=factories.pipeline(f"pipeline-{number}"))
        if number % 2:
            factories.timing(other)
        late(other, steps=tree)
        late(usual.stage, steps=tree)
    assert queries(at_desk, address) == few


def test_all_rows_cost_one_query_for_what_is_usual(usual: StageTiming, manager: User) -> None:
    for number in range(3):
        other = factories.stage(of=factories.pipeline(f"pipeline-{number}"))
        factories.timing(other)
        flying(other)
    with CaptureQueriesContext(connection) as seen:
        run_row.html_of(Run.objects.all(), permissions.rights(manager))
    asked = [each for each in seen.captured_queries if "dashboard_stagetiming" in each["sql"]]
    assert len(asked) == 1


def test_a_card_costs_one_query_for_what_is_usual(usual: StageTiming, manager: User) -> None:
    run = Run.objects.with_place().get(pk=late(usual.stage).pk)
    with CaptureQueriesContext(connection) as seen:
        card(run, permissions.rights(manager), [])
    asked = [each for each in seen.captured_queries if "dashboard_stagetiming" in each["sql"]]
    assert len(asked) == 1


def test_rows_that_are_ready_cost_none(usual: StageTiming, manager: User) -> None:
    flying(usual.stage)
    rights = permissions.rights(manager)
    run_row.html_of(Run.objects.all(), rights)
    with CaptureQueriesContext(connection) as seen:
        run_row.html_of(Run.objects.all(), rights)
    assert len(seen) == 1


# --- From the clock to the page -----------------------------------------------------------------


def test_a_run_that_becomes_overdue_is_painted_anew(see: See, usual: StageTiming) -> None:
    run = flying(usual.stage, 8)
    assert row_of(see, run).css(".late") == []
    overdue_checker.mark(timezone.now() + 2 * MINUTE)
    assert words(one(row_of(see, run), ".late")) == "Overdue"


def test_what_is_learned_as_others_succeed_shows_in_the_rows_of_those_in_flight(
    see: See, usual: StageTiming
) -> None:
    run = flying(usual.stage)
    assert words(one(row_of(see, run), ".usually")) == "usually 6 to 9 min"
    now = timezone.now()
    times = {"created_at": now - 40 * MINUTE, "started_at": now - 40 * MINUTE, "concluded_at": now}
    said = [api_run(f"r{n}", status="success", concluded=True, **times) for n in range(5)]
    mirror.runs(usual.stage_id, said, asked_at=now)
    assert words(one(row_of(see, run), ".usually")) == "usually about 40 min"
