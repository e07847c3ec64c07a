"""How much is known, in one sentence: what was not read yet, and for about how long."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone

from dashboard.models import Budget, CatalogueSweep, Stage
from dashboard.sync import coverage
from dashboard.sync.coverage import Coverage
from dashboard.sync.schedule import seconds_to_read
from dashboard.upstream import rate_budget as rules
from dashboard.upstream.rate_budget import Window
from tests.support import factories
from tests.support.world import T0, at

UNREAD = {"synced_at": None, "promised_at": None}
SOME = Coverage(255, 208)


def known() -> Coverage:
    lists = CatalogueSweep.objects.all()
    return coverage.load(Stage.objects.present(), lists, timezone.now())


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (Coverage(255), ""),
        (SOME, "Incomplete: 208 of 255 stages not read yet."),
        (
            replace(SOME, seconds_left=125.0),
            "Incomplete: 208 of 255 stages not read yet, about 2 min left.",
        ),
        (
            replace(SOME, seconds_left=3.0),
            "Incomplete: 208 of 255 stages not read yet, less than a minute left.",
        ),
        (
            Coverage(3000, 1900, whole=("Production",), seconds_left=7300.0),
            (
                "Incomplete: 1,900 of 3,000 stages not read yet, all of Production read, "
                "about 2 h 2 min left."
            ),
        ),
        (replace(SOME, lost=208), "Incomplete: 208 of 255 stages not read again yet."),
        (replace(SOME, lost=207), "Incomplete: 208 of 255 stages not read yet."),
        (Coverage(1, 1), "Incomplete: 1 of 1 stage not read yet."),
        (
            Coverage(9, 2, failing=2),
            "Incomplete: 2 of 9 stages not read yet, 2 of them can’t be read.",
        ),
        (
            Coverage(9, 2, lists=3),
            ("Incomplete: 2 of 9 stages not read yet, the pipelines of 3 projects not listed yet."),
        ),
        (
            Coverage(0, listed=False, lists=1),
            "Incomplete: Northflank’s projects have not been listed yet.",
        ),
    ],
)
def test_what_is_not_known_is_one_sentence(of: Coverage, text: str) -> None:
    assert of.text == text
    assert of.complete is (text == "")


def test_an_empty_database_is_not_complete(db: None) -> None:
    assert not known().complete


def test_an_account_without_any_pipeline_is_complete(db: None) -> None:
    CatalogueSweep.objects.create(project=None, next_at=T0, swept_at=T0)
    assert known().complete


def test_what_was_read_is_complete(place: Stage) -> None:
    factories.stage("Staging", has_flow=False)
    assert known() == Coverage(2)


def test_what_was_never_read_is_counted(place: Stage) -> None:
    factories.stage("Staging", **UNREAD)
    assert (known().total, known().unread, known().whole) == (2, 1, ("Production",))


def test_a_stage_of_which_older_runs_may_be_in_flight_is_counted(place: Stage) -> None:
    Stage.objects.update(in_flight_unread=True)
    assert known().unread == 1


def test_a_stage_that_can_not_be_read_is_told_apart(place: Stage) -> None:
    factories.stage("Staging", **UNREAD, error="forbidden", error_message="No.", failures=1)
    assert (known().unread, known().failing, known().seconds_left) == (1, 1, None)


def test_how_long_it_takes_is_told_while_somebody_reads(place: Stage) -> None:
    factories.stage("Staging", **UNREAD)
    assert known().seconds_left is None
    factories.worker()
    assert known().seconds_left is not None
    factories.trouble("It fell over.")
    assert known().seconds_left is None


def test_nobody_can_say_how_long_it_takes_while_northflank_refuses(place: Stage) -> None:
    factories.worker()
    factories.stage("Staging", **UNREAD)
    now = timezone.now()
    Budget.objects.create(
        limit=1000, remaining=985, resets_at=now + timedelta(minutes=50), seen_at=now,
        refused_until=now + timedelta(seconds=50), refusals=1,
    )  # fmt: skip
    assert known().seconds_left is None


def full(others: float = 0.0) -> Window:
    return Window(1000, 1000, at(3600), T0, 0, others / 3600)


@pytest.mark.parametrize(
    ("reads", "others", "least", "most"),
    [
        (180, 0, 10, 20),
        (300, 0, 20, 30),
        (300, 300, 20, 30),
        (675, 0, 50, 60),  # what is kept for following, and no more, is left
        (680, 0, 200, 400),
        (1000, 0, 3600, 3700),  # more than an hour has: with the next
        (3000, 0, 4 * 3600, 5 * 3600),
        (3000, 600, 12 * 3600, 14 * 3600),
    ],
)
def test_how_long_first_reads_take(reads: int, others: int, least: float, most: float) -> None:
    spend = rules.allowance(full(others), 100, T0)
    seconds = seconds_to_read(reads, spend, 1000)
    assert seconds is not None
    assert least <= seconds <= most


def test_what_has_no_end_is_not_told() -> None:
    assert seconds_to_read(10**6, rules.allowance(full(), 100, T0), 1000) is None


def test_more_stages_never_take_less_time() -> None:
    spend = rules.allowance(full(300), 100, T0)
    times = [seconds_to_read(reads, spend, 1000) or 0.0 for reads in range(1, 4000, 37)]
    assert times == sorted(times)
