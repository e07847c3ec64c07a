"""The history chart of a stage: its bars, and a new chart once another run has ended."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.template.loader import render_to_string
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Run, Stage
from dashboard.web.components.runs import history_chart, history_charts
from dashboard.web.components.runs.history_chart import (
    BASE,
    HEIGHT,
    MAX_RUNS,
    ConcludedRun,
    HistoryChart,
    RunBar,
)
from tests.support import factories
from tests.support.factories import HOSTILE
from tests.support.html import GetPage, select_one, text_of
from tests.support.messages import keys_and_params, messages

ENDED_AT = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)


def ended_run(
    status: str = "success", minutes: float | None = 6, key: int = 1, ago: int = 0
) -> ConcludedRun:
    duration = None if minutes is None else timedelta(minutes=minutes)
    return ConcludedRun(key, status, duration, ENDED_AT - timedelta(hours=ago))


def chart_of(*runs: ConcludedRun, marked_run: int = 0) -> HistoryChart:
    chart = history_chart.draw(runs, marked_run=marked_run)
    assert chart is not None
    return chart


def bar_height(bar: RunBar) -> int:
    """The height of a bar."""
    match = re.match(r"M[\d.]+ \d+v-(\d+)h", bar.path)
    assert match is not None, bar.path
    return int(match[1])


def bar_left(bar: RunBar) -> float:
    return float(bar.path[1:].split()[0])


# --- The drawing --------------------------------------------------------------------------------


def test_bar_height_is_proportional_to_longest_duration() -> None:
    assert [
        bar_height(bar) for bar in chart_of(ended_run(minutes=4), ended_run(minutes=8)).bars
    ] == [32, 16]


def test_bar_shape_depends_on_final_status() -> None:
    kinds = ["success", "failure", "aborted", "skipped", "unknown"]
    bars = chart_of(*(ended_run(kind) for kind in kinds)).bars[::-1]
    assert [bar.kind for bar in bars] == ["success", "failure", "aborted", "skipped", "other"]
    success, failure, aborted, skipped, _ = (bar.path for bar in bars)
    assert success.count("M") == 1
    assert failure.count("M") == 2  # with a cross on top
    assert aborted.count("z") == 1  # an outline
    assert "z" not in skipped  # a dot


def test_median_line_is_at_median_of_successes() -> None:
    chart = chart_of(ended_run(minutes=4), ended_run(minutes=4), ended_run("failure", 8))
    assert chart.median_path == f"M0 {BASE - HEIGHT / 2:g}h24"


def test_bar_of_current_run_is_marked() -> None:
    bars = chart_of(ended_run(key=1), ended_run(key=2), marked_run=2).bars
    assert [bool(bar.marker_path) for bar in bars] == [True, False]


def test_history_chart_draws_at_most_max_bars() -> None:
    assert len(chart_of(*[ended_run()] * (MAX_RUNS + 5)).bars) == MAX_RUNS


def test_history_chart_without_runs_is_none() -> None:
    assert history_chart.draw([]) is None


# --- Texts --------------------------------------------------------------------------------------


def counts(chart: HistoryChart) -> dict[str, Any]:
    """The number of runs by the key of its text; `counts` is that of all."""
    return {message.key: message.params["n"] for message in messages(chart.counts_text)}


def test_counts_text_shows_number_per_status() -> None:
    runs = [*[ended_run()] * 26, *[ended_run("failure")] * 3, ended_run("aborted")]
    assert counts(chart_of(*runs)) == {"success": 26, "failure": 3, "aborted": 1, "counts": 30}


def test_median_text_names_number_of_successes() -> None:
    chart = chart_of(
        ended_run(minutes=4),
        ended_run(minutes=6),
        ended_run(minutes=90),
        ended_run("success", None),
    )
    expected = {"n": 3, "successes": 3, "took": "6 min 00 s"}
    assert keys_and_params(chart.median_text) == ("median", expected)


@pytest.mark.parametrize("status", ["failure", "aborted", "skipped", "unknown"])
def test_median_excludes_unsuccessful_runs(status: str) -> None:
    successes = [ended_run(minutes=4), ended_run(minutes=6)]
    others = [ended_run(status, 1), ended_run(status, 2), ended_run(status, 3)]
    chart = chart_of(*successes, *others)
    assert chart.median_text == chart_of(*successes).median_text
    assert chart.median_path.startswith(f"M0 {BASE - round(HEIGHT * 5 / 6)}h")


@pytest.mark.parametrize(
    ("minutes", "text"),
    [
        (7.05, "Failed, 7 min 03 s, ended 2026-01-01 03:00:00 UTC"),
        (None, "Failed, ended 2026-01-01 03:00:00 UTC"),
    ],
)
def test_bar_title_shows_status_duration_and_end(minutes: float | None, text: str) -> None:
    chart = chart_of(ended_run("failure", minutes))
    context = {"chart": chart, "view_box": history_chart.VIEW_BOX}
    html = LexborHTMLParser(render_to_string("components/history_chart.html#chart", context))
    assert select_one(html, "path.bar title").text() == text


def test_bar_title_of_a_failed_run_names_the_step() -> None:
    failed = ConcludedRun(1, "failure", timedelta(minutes=6), ENDED_AT, "migrate")
    assert chart_of(failed).bars[0].title == "Failed, migrate, 6 min 00 s"


@given(
    st.lists(
        st.builds(
            ConcludedRun,
            key=st.integers(1, 40),
            status=st.sampled_from(["success", "failure", "aborted", "skipped"]) | st.text(),
            duration=st.none() | st.timedeltas(timedelta(), timedelta(days=3_650_000)),
            ended_at=st.just(ENDED_AT),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_history_chart_of_any_runs_stays_within_bounds(runs: list[ConcludedRun]) -> None:
    chart = chart_of(*runs, marked_run=1)
    for bar in chart.bars:
        assert 0 <= bar_left(bar) < MAX_RUNS * history_chart.SLOT_WIDTH
        if bar.kind != "skipped":
            assert 2 <= bar_height(bar) <= HEIGHT
    if len(chart.bars) > 1:
        *of_kinds, total = counts(chart).values()
        assert sum(of_kinds) == total == len(chart.bars)


# --- On pages -----------------------------------------------------------------------------------


@pytest.fixture
def succeeded_run(stage: Stage) -> Run:
    """A run that has succeeded, after another that failed."""
    now = timezone.now()
    factories.run(
        stage, status="failure", created_at=now - timedelta(hours=3),
        started_at=now - timedelta(hours=3), concluded_at=now - timedelta(hours=2),
    )  # fmt: skip
    return factories.run(stage, status="success")


def test_stage_page_shows_history_chart_with_caption(get_page: GetPage, succeeded_run: Run) -> None:
    figure = select_one(get_page(factories.address(succeeded_run.stage)), "figure.history-chart")
    assert len(figure.css("path.bar")) == 2
    caption = text_of(select_one(figure, "figcaption"))
    assert caption.startswith(
        "Last 2 runs: 1 succeeded, 1 failed; the success took 55 s, incl. approvals; last failure"
    )
    assert select_one(figure, "figcaption time[data-ago]")


def test_history_chart_excludes_runs_in_flight(get_page: GetPage, succeeded_run: Run) -> None:
    factories.run(succeeded_run.stage)
    assert len(get_page(factories.address(succeeded_run.stage)).css("path.bar")) == 2


def test_run_page_history_chart_marks_this_run(get_page: GetPage, succeeded_run: Run) -> None:
    html = get_page(factories.address(succeeded_run))
    assert len(html.css("path.bar")) == 2
    assert html.css("path.bar + path.here")


def bars(stage: Stage) -> int:
    return history_charts.render_charts([stage])[stage.pk].count('class="bar"')


def test_history_chart_is_updated_when_run_ends(succeeded_run: Run) -> None:
    before = bars(succeeded_run.stage)
    factories.run(succeeded_run.stage, status="aborted")
    assert bars(succeeded_run.stage) == before + 1


def test_removed_runs_take_no_place_in_history_chart(stage: Stage) -> None:
    now = timezone.now()
    for hours in range(MAX_RUNS + 5):
        at = now - timedelta(hours=hours)
        factories.run(stage, status="success", created_at=at, started_at=at, concluded_at=at)
        factories.run(stage, created_at=at, started_at=at, in_flight=False, removed_at=now)
    assert bars(stage) == MAX_RUNS


def count_queries(stages: list[Stage]) -> int:
    with CaptureQueriesContext(connection) as queries:
        history_charts.render_charts(stages)
    return len(queries)


def test_rendered_history_charts_of_many_stages_need_one_query(db: None) -> None:
    stages = [
        factories.run(factories.stage(parent=factories.pipeline(f"p-{n}")), status="success").stage
        for n in range(20)
    ]
    history_charts.render_charts(stages)
    assert count_queries(stages[:2]) == count_queries(stages) == 1


def test_history_chart_escapes_hostile_status(get_page: GetPage, stage: Stage) -> None:
    factories.run(stage, status=HOSTILE, concluded=True, in_flight=False)
    html = get_page(factories.address(stage))
    assert html.css("#hostile") == []
    assert text_of(select_one(html, "path.bar title")).startswith('<b id="hostile">')
