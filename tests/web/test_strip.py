"""A stage's latest runs as bars: drawn by rules of their own, made anew when another has ended."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from dashboard.models import Run, Stage
from dashboard.web.components import history_chart, history_charts
from dashboard.web.components.history_chart import BASE, HEIGHT, MOST, Bar, Past, Strip
from tests.support import factories
from tests.support.factories import HOSTILE
from tests.support.html import See, one, words

ENDED = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)


def past(status: str = "success", minutes: float | None = 6, key: int = 1, ago: int = 0) -> Past:
    took = None if minutes is None else timedelta(minutes=minutes)
    return Past(key, status, took, ENDED - timedelta(hours=ago))


def drawn(*runs: Past, here: int = 0) -> Strip:
    found = history_chart.of(runs, here=here)
    assert found is not None
    return found


def height(bar: Bar) -> int:
    """How high a bar is."""
    found = re.match(r"M[\d.]+ \d+v-(\d+)h", bar.path)
    assert found is not None, bar.path
    return int(found[1])


def left(bar: Bar) -> float:
    return float(bar.path[1:].split()[0])


# --- The drawing --------------------------------------------------------------------------------


def test_the_longest_has_the_full_height_and_others_their_share() -> None:
    assert [height(bar) for bar in drawn(past(minutes=4), past(minutes=8)).bars] == [32, 16]


def test_one_that_was_forgotten_does_not_flatten_the_others() -> None:
    bars = drawn(past(minutes=6), past(minutes=6), past(minutes=6000)).bars
    assert [height(bar) for bar in bars] == [HEIGHT, round(HEIGHT / 3), round(HEIGHT / 3)]


@pytest.mark.parametrize("minutes", [0, None])
def test_one_that_took_no_time_is_seen_too(minutes: float | None) -> None:
    assert height(drawn(past(minutes=minutes), past()).bars[1]) == 2


def test_the_oldest_comes_first_and_stands_at_the_left() -> None:
    bars = drawn(past(minutes=1, ago=1), past(minutes=2, ago=2)).bars
    assert [height(bar) for bar in bars] == [32, 16]
    assert left(bars[0]) < left(bars[1])


def test_how_a_run_ended_shows_in_its_shape() -> None:
    kinds = ["success", "failure", "aborted", "skipped", "unknown"]
    bars = drawn(*(past(kind) for kind in kinds)).bars[::-1]
    assert [bar.kind for bar in bars] == ["success", "failure", "aborted", "skipped", "other"]
    success, failure, aborted, skipped, _ = (bar.path for bar in bars)
    assert success.count("M") == 1
    assert failure.count("M") == 2  # with a cross on top
    assert aborted.count("z") == 1  # an outline
    assert "z" not in skipped  # a dot


def test_a_line_is_drawn_at_the_median_of_the_successes() -> None:
    found = drawn(past(minutes=4), past(minutes=4), past("failure", 8))
    assert found.median == f"M0 {BASE - HEIGHT / 2:g}h24"


def test_without_a_success_there_is_no_line() -> None:
    found = drawn(past("failure"), past("success", None))
    assert (found.median, found.middle) == ("", "")


def test_one_run_can_be_pointed_at() -> None:
    bars = drawn(past(key=1), past(key=2), here=2).bars
    assert [bool(bar.mark) for bar in bars] == [True, False]


def test_no_more_are_drawn_than_there_is_room_for() -> None:
    assert len(drawn(*[past()] * (MOST + 5)).bars) == MOST


def test_where_there_is_nothing_there_is_no_strip() -> None:
    assert history_chart.of([]) is None


# --- The words ----------------------------------------------------------------------------------


def test_it_is_told_in_words_how_they_ended() -> None:
    runs = [*[past()] * 26, *[past("failure")] * 3, past("aborted")]
    assert drawn(*runs).counts == "Last 30 runs: 26 succeeded, 3 failed, 1 aborted"


def test_what_ended_in_ways_of_its_own_is_counted_together() -> None:
    found = drawn(past("unknown"), past("hibernated"), past("skipped"))
    assert found.counts == "Last 3 runs: 1 skipped, 2 ended otherwise"


def test_a_single_run_is_not_counted() -> None:
    assert drawn(past("failure")).counts == "Last run: failed"


def test_the_median_is_told_with_what_it_is_of() -> None:
    found = drawn(past(minutes=4), past(minutes=6), past(minutes=90), past("success", None))
    told = "median of 3 successes: 6 min 0 s, waits for people included"
    assert found.middle == told


def test_of_one_success_it_is_told_how_long_it_took() -> None:
    found = drawn(past("failure", 90), past(minutes=4))
    assert found.middle == "the success took 4 min 0 s, waits for people included"


@pytest.mark.parametrize("status", ["failure", "aborted", "skipped", "unknown"])
def test_what_did_not_succeed_has_no_part_in_the_median(status: str) -> None:
    successes = [past(minutes=4), past(minutes=6)]
    others = [past(status, 1), past(status, 2), past(status, 3)]
    found = drawn(*successes, *others)
    assert found.middle == drawn(*successes).middle
    assert found.median.startswith(f"M0 {BASE - round(HEIGHT * 5 / 6)}h")


def test_the_last_failure_is_the_latest() -> None:
    found = drawn(past(ago=1), past("failure", ago=2), past("failure", ago=3))
    assert found.failed_at == ENDED - timedelta(hours=2)


def test_a_bar_says_how_its_run_ended_how_long_it_took_and_when_it_ended() -> None:
    assert drawn(past("failure", 7.05)).bars[0].title == "Failed, 7 min 3 s, ended 1 Jan 03:00 UTC"


def test_a_status_that_is_a_novel_is_cut() -> None:
    assert len(drawn(past(HOSTILE)).bars[0].title) < 100


@given(
    st.lists(
        st.builds(
            Past,
            key=st.integers(1, 40),
            status=st.sampled_from(["success", "failure", "aborted", "skipped"]) | st.text(),
            took=st.none() | st.timedeltas(timedelta(), timedelta(days=3_650_000)),
            ended_at=st.none() | st.just(ENDED),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_any_history_is_drawn_within_its_frame(runs: list[Past]) -> None:
    found = drawn(*runs, here=1)
    for bar in found.bars:
        assert 0 <= left(bar) < MOST * history_chart.SLOT
        if bar.kind != "skipped":
            assert 2 <= height(bar) <= HEIGHT
    if len(found.bars) > 1:
        counted = re.findall(r"(\d+) \w", found.counts.partition(": ")[2])
        assert sum(map(int, counted)) == len(found.bars)


# --- On pages -----------------------------------------------------------------------------------


@pytest.fixture
def ended(stage: Stage) -> Run:
    """A run that has succeeded, after another that failed."""
    now = timezone.now()
    factories.run(
        stage, status="failure", created_at=now - timedelta(hours=3),
        started_at=now - timedelta(hours=3), concluded_at=now - timedelta(hours=2),
    )  # fmt: skip
    return factories.run(stage, status="success")


def test_a_stages_page_has_it_with_its_words(see: See, ended: Run) -> None:
    figure = one(see(factories.address(ended.stage)), "figure.strip")
    assert len(figure.css("path.bar")) == 2
    told = words(one(figure, "figcaption"))
    assert told.startswith(
        "Last 2 runs: 1 succeeded, 1 failed; "
        "the success took 55 s, waits for people included; the last failure"
    )
    assert one(figure, "figcaption time[data-moment]")


def test_each_bar_has_a_title(see: See, ended: Run) -> None:
    bars = see(factories.address(ended.stage)).css("path.bar")
    assert [words(one(bar, "title")).split(",")[0] for bar in bars] == ["Failed", "Success"]


def test_the_line_says_what_the_words_below_say(see: See, ended: Run) -> None:
    figure = one(see(factories.address(ended.stage)), "figure.strip")
    assert words(one(figure, "path.median title")) in words(one(figure, "figcaption"))


def test_runs_in_flight_are_not_in_it(see: See, ended: Run) -> None:
    factories.run(ended.stage)
    assert len(see(factories.address(ended.stage)).css("path.bar")) == 2


def test_a_run_that_northflank_lost_is_not_in_it(see: See, ended: Run) -> None:
    factories.run(ended.stage, concluded=False, in_flight=False, gone_at=timezone.now())
    assert len(see(factories.address(ended.stage)).css("path.bar")) == 2


def test_a_runs_own_page_points_at_it(see: See, ended: Run) -> None:
    html = see(factories.address(ended))
    assert len(html.css("path.bar")) == 2
    assert html.css("path.bar + path.here")


def test_on_the_page_of_a_run_in_flight_nothing_is_pointed_at(see: See, ended: Run) -> None:
    html = see(factories.address(factories.run(ended.stage)))
    assert html.css("path.bar")
    assert html.css("path.here") == []


def test_a_pipelines_page_has_one_a_stage(see: See, ended: Run) -> None:
    factories.run(factories.stage("Staging", of=ended.stage.pipeline), status="aborted")
    assert len(see(factories.address(ended.stage.pipeline)).css("figure.strip")) == 2


def test_the_boards_cells_have_it_with_a_title(see: See, ended: Run) -> None:
    found = one(see("/board/"), "td svg.strip")
    told = "Last 2 runs: 1 succeeded, 1 failed; the success took 55 s, waits for people included"
    assert words(one(found, "title")) == told
    assert found.css("path[data-kind=failure]")


@pytest.mark.parametrize("address", ["/board/", "stage", "run", "pipeline"])
def test_where_nothing_has_ended_there_is_none(see: See, run: Run, address: str) -> None:
    of = {"stage": run.stage, "run": run, "pipeline": run.stage.pipeline}.get(address)
    assert see(factories.address(of) if of else address).css(".strip") == []


def bars(stage: Stage) -> int:
    return history_charts.strips([stage])[stage.pk].count('class="bar"')


def test_it_is_made_anew_when_another_run_has_ended(ended: Run) -> None:
    before = bars(ended.stage)
    factories.run(ended.stage, status="aborted")
    assert bars(ended.stage) == before + 1


def test_an_older_run_that_ends_after_a_newer_one_is_seen_too(ended: Run) -> None:
    long_ago = timezone.now() - timedelta(days=1)
    older = factories.run(ended.stage, created_at=long_ago, started_at=long_ago)
    before = bars(ended.stage)
    now = timezone.now()
    factories.change(older, status="success", concluded=True, in_flight=False, concluded_at=now)
    assert bars(ended.stage) == before + 1


def test_what_people_say_is_usual_is_not_about_it(ended: Run) -> None:
    before = history_charts.strips([ended.stage])
    factories.timing(ended.stage, said_median=1200, said_p95=1800)
    assert history_charts.strips([ended.stage]) == before


def test_of_a_long_history_the_latest_are_shown(stage: Stage) -> None:
    now = timezone.now()
    for hours in range(MOST + 5):
        at = now - timedelta(hours=hours)
        status = "success" if hours < MOST else "failure"
        factories.run(stage, status=status, created_at=at, started_at=at, concluded_at=at)
    other = factories.run(factories.stage("Staging"), status="aborted").stage
    html = history_charts.strips([stage, other])
    assert html[stage.pk].count('data-kind="success"') == MOST
    assert "failure" not in html[stage.pk]
    assert html[other.pk].count('class="bar"') == 1


@pytest.mark.parametrize("others", [0, 1])
def test_runs_that_northflank_lost_take_nobodys_place(stage: Stage, others: int) -> None:
    now = timezone.now()
    for hours in range(MOST + 5):
        at = now - timedelta(hours=hours)
        factories.run(stage, status="success", created_at=at, started_at=at, concluded_at=at)
        factories.run(stage, created_at=at, started_at=at, in_flight=False, gone_at=now)
    beside = [factories.stage("Staging")] * others
    assert history_charts.strips([stage, *beside])[stage.pk].count('class="bar"') == MOST


def queries(stages: list[Stage]) -> int:
    with CaptureQueriesContext(connection) as seen:
        history_charts.strips(stages)
    return len(seen)


def test_many_stages_cost_no_more_queries_than_two(db: None) -> None:
    stages = [
        factories.run(factories.stage(of=factories.pipeline(f"p-{n}")), status="success").stage
        for n in range(20)
    ]
    assert queries(stages[:2]) == queries(stages[2:])


def test_one_that_was_made_costs_one_query(ended: Run) -> None:
    history_charts.strips([ended.stage])
    assert queries([ended.stage]) == 1


def test_a_hostile_status_is_text_in_it(see: See, stage: Stage) -> None:
    factories.run(stage, status=HOSTILE, concluded=True, in_flight=False)
    html = see(factories.address(stage))
    assert html.css("#hostile") == []
    assert words(one(html, "path.bar title")).startswith('<b id="hostile">')
