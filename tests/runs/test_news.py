"""What happened to runs since a time: what counts, and in what words and order."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.accounts import permissions
from dashboard.models import ChangeCounter, Run, Stage
from dashboard.runs import news
from dashboard.runs.news import AllNews
from tests.support import factories
from tests.support.messages import params

HOUR = timedelta(hours=1)
NOW = timezone.now()
# A run that ended an hour ago, as was read at once.
ENDED = {"concluded_at": NOW - HOUR, "status_since": NOW - HOUR}
OLD = dict.fromkeys(("created_at", "started_at", "first_synced_at"), NOW - 9 * HOUR)


@pytest.fixture
def stage(db: None) -> Stage:
    return factories.stage()


def found(since: Any = NOW - 2 * HOUR, version: int = 0) -> AllNews:
    return news.load(permissions.ALL, version, since)


def told(since: Any = NOW - 2 * HOUR, version: int = 0) -> dict[str, list[str]]:
    """The ids of the runs to which something happened, by what and by whom."""
    ids = dict(Run.objects.values_list("pk", "run_id"))
    return {
        " ".join(filter(None, (item.text.key, str(item.text.params.get("who", ""))))): [
            ids[pk] for pk in item.runs
        ]
        for item in found(since, version).news
    }


def test_each_end_start_and_delay_is_told_the_most_urgent_first(stage: Stage) -> None:
    for status in ("success", "skipped", "failure", "aborted"):
        factories.run(stage, f"r-{status}", status=status, **OLD | ENDED)
    factories.run(stage, "r-odd", status="odd", concluded=True, in_flight=False, **OLD | ENDED)
    factories.run(stage, "r-removed", removed_at=NOW - HOUR, **OLD)
    factories.run(stage, "r-new", started_at=NOW - HOUR)
    factories.run(stage, "r-late", overdue_since=NOW - HOUR, overdue_severity=1, **OLD)
    assert told() == {
        "failed": ["r-failure"],
        "overdue": ["r-late"],
        "aborted_outside": ["r-aborted"],
        "otherwise": ["r-odd", "r-skipped", "r-removed"],
        "succeeded": ["r-success"],
        "started": ["r-new"],
    }
    assert [params(item.text)["n"] for item in found().news] == [1, 1, 1, 3, 1, 1]


def test_runs_are_listed_by_their_time_and_not_by_their_last_change(stage: Stage) -> None:
    for hours in (2, 1, 3):
        ended = {"concluded_at": NOW - hours * HOUR, "status_since": NOW}
        factories.run(stage, f"r-{hours}", status="failure", **OLD | ended)
    assert told() == {"failed": ["r-1", "r-2", "r-3"]}


def test_run_that_became_overdue_and_ended_is_told_twice(stage: Stage) -> None:
    factories.run(stage, "r-1", status="failure", overdue_since=NOW - HOUR, **OLD | ENDED)
    assert told() == {"failed": ["r-1"], "overdue": ["r-1"]}


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "running"},
        {"status": "success", "concluded_at": NOW - 3 * HOUR, "status_since": NOW - 3 * HOUR},
        {"overdue_since": NOW - 3 * HOUR, "overdue_severity": 1},
        {"status": "queued", "started_at": None, "first_synced_at": NOW},
    ],
)
def test_what_was_known_before_is_not_told_again(stage: Stage, fields: dict[str, Any]) -> None:
    factories.run(stage, **OLD | fields)  # it has changed since, in another way
    assert told() == {}


def test_what_is_read_late_is_told_then(stage: Stage) -> None:
    ended = {"concluded_at": NOW - 5 * HOUR, "status_since": NOW}
    factories.run(stage, "r-1", status="success", **OLD | ended)
    factories.run(stage, "r-2", started_at=NOW - 5 * HOUR, first_synced_at=NOW)
    assert told() == {"succeeded": ["r-1"], "started": ["r-2"]}


def test_old_runs_of_a_new_stage_are_not_told(stage: Stage) -> None:
    ended_at = NOW - timedelta(days=2)
    factories.run(stage, status="success", started_at=ended_at, concluded_at=ended_at)
    assert told() == {}


def test_run_that_has_not_changed_since_is_not_told(stage: Stage) -> None:
    factories.run(stage, "r-1", status="success", **ENDED)
    assert told(version=ChangeCounter.latest()) == {}


def test_aborted_runs_are_told_by_who_aborted_most(stage: Stage) -> None:
    for count, name in ((2, "ana"), (4, "ben"), (3, "cleo"), (1, "dan"), (1, "eve")):
        user = User.objects.create(username=name)
        for number in range(count):
            run = factories.run(stage, f"{name}-{number}", status="aborted", **OLD | ENDED)
            factories.abort(run, user, "concluded", settled_at=NOW, outcome="aborted")
    run = factories.run(stage, "r-1", status="aborted", **OLD | ENDED)
    factories.abort(run, user, "refused", settled_at=NOW)
    assert {key: len(runs) for key, runs in told().items()} == {
        "aborted_by ben": 4,
        "aborted_by cleo": 3,
        "aborted_by ana": 2,
        "aborted_by dan": 1,
        "aborted_by eve": 1,
        "aborted_outside": 1,
    }


def test_of_many_changed_runs_the_last_are_told(stage: Stage) -> None:
    first = factories.run(stage, "r-first")
    assert not found().is_cut
    later = range(1, news.MAX_CHANGED + 1)
    factories.insert_copies(
        first, ({"run_id": f"r-{number}", "version": first.version + number} for number in later)
    )
    assert found().is_cut
    [ids] = told().values()
    assert sorted(ids) == sorted(f"r-{number}" for number in later)
