"""What holds whatever fails at Northflank: what is stored, shown, logged and used."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import ERROR, WARNING, LogRecord
from pathlib import Path

from django.db.models import Model

from dashboard.models import CatalogSync, Pipeline, Project, RateBudget, Run, Stage, Upstream
from dashboard.models.abort_lifecycle import EventType
from dashboard.server import memory

# Forty times the largest answer, while one is decoded, and some that are being received.
MAX_BYTES = 300_000_000
_FIELDS: dict[type[Model], tuple[str, ...]] = {
    Upstream: ("team",),
    Project: ("slug", "name"),
    Pipeline: ("slug", "name", "description"),
    Stage: ("name", "has_flow", "concurrency_policy", "paused"),
    Run: (
        *("run_id", "name", "description", "status", "concluded", "in_flight", "created_at"),
        *("started_at", "concluded_at", "updated_at", "steps", "step"),
    ),
}
_REMOVABLE = (Project, Pipeline, Run)
# Of each pair, which event ends what the other began.
_ENDS = {
    "northflank.recovered": "northflank.unavailable",
    "stage.recovered": "stage.read_failed",
    "catalog.recovered": "catalog.read_failed",
    "run.recovered": "run.read_failed",
}

# By what an error is recorded of, the event that says so.
_STARTS = {
    "northflank": "northflank.unavailable",
    "pause": "northflank.unavailable",
    "list": "catalog.read_failed",
    "stage": "stage.read_failed",
    "run": "run.read_failed",
}
# The same for what has happened to an abort.
_ABORT_EVENTS = {
    EventType.REQUESTED: "abort.requested",
    EventType.ACCEPTED: "abort.accepted",
    EventType.REFUSED: "abort.settled",
    EventType.NOT_SENT: "abort.settled",
    EventType.TOO_LATE: "abort.settled",
    EventType.UNKNOWN: "abort.unknown",
    EventType.NOT_ARRIVED: "abort.not_arrived",
}

type Rows = dict[tuple[str, int], dict[str, object]]


def stored_rows() -> Rows:
    """Return what is known of Northflank's objects, without when it was read."""
    return {
        (model.__name__, row.pop("pk")): {k: v for k, v in row.items() if v is not None and v != ""}
        for model, names in _FIELDS.items()
        for row in model._default_manager.values("pk", *names)
    }


def assert_nothing_is_lost(before: Rows) -> None:
    """Fail if anything known before is now missing, changed or counted as removed."""
    after = stored_rows()
    for key, row in before.items():
        lost = {k: (v, after[key].get(k)) for k, v in row.items() if after[key].get(k) != v}
        assert not lost, f"{key}: {lost}"
    for model in _REMOVABLE:
        assert not model._default_manager.exclude(removed_at=None).exists()


def recorded_errors() -> list[tuple[str, str]]:
    """Return all recorded errors: of what, and the cause, which of a run is not recorded."""
    causes = [
        (name, cause)
        for name, model in (("northflank", Upstream), ("list", CatalogSync), ("stage", Stage))
        for cause in model._default_manager.exclude(error="").values_list("error", flat=True)
    ]
    if RateBudget.objects.exclude(refusals=0).exists():
        causes.append(("pause", "rate_limited"))
    return causes + [("run", "of a run") for _ in Run.objects.in_flight().exclude(failures=0)]


def assert_pages_are_true(pages: Mapping[str, str], run: Run) -> None:
    """Fail unless pages, by name, show the run and exactly the errors that are recorded."""
    for name in ("now", "stage", "run"):
        assert run.run_id in pages[name], name
    for name in ("board", "pipeline", "health"):
        assert run.stage.pipeline.name in pages[name], name
    is_down = Upstream.objects.exclude(error="").exists()
    for name, text in pages.items():
        assert ("No updates from Northflank since" in text) == is_down, name
    for name, model in (("stage", Stage), ("list", CatalogSync)):
        messages = model._default_manager.exclude(error="").values_list("error_message", flat=True)
        for message in messages:
            assert message in pages["health"], f"the error of a {name}: {message}"
    is_paused = RateBudget.objects.exclude(refusals=0).exists()
    assert ("pause" in pages["health"]) == is_paused
    assert is_down or not is_paused
    # Where there is no release flow, no run can be missing.
    is_stage_failing = Stage.objects.exclude(error="").exclude(has_flow=False).exists()
    says_stage = re.search("(stages?|of them) cannot be read", pages["now"]) is not None
    assert says_stage == is_stage_failing, recorded_errors()
    is_list_failing = CatalogSync.objects.exclude(error="").exists()
    says_list = re.search("lists? cannot be read", pages["now"]) is not None
    assert says_list == is_list_failing, recorded_errors()
    is_run_failing = Run.objects.filter(pk=run.pk).exclude(failures=0).exists()
    assert ("The steps could not be read" in pages["run"]) == is_run_failing


def assert_log_has_each_change_once(records: Sequence[LogRecord], failed: Collection[str]) -> None:
    """Fail unless each error was logged once at its start and once at its end, and no other.

    `failed`: of what errors were recorded, as by `recorded_errors`.
    """
    missing = {_STARTS[what] for what in failed} - logged_warnings(records)
    assert not missing, f"never logged: {missing}"
    lasting: set[tuple[str, object]] = set()
    for record in records:
        assert record.levelno < ERROR, record.getMessage()
        assert not record.exc_info, record.getMessage()
        if not isinstance(record.msg, dict):
            continue
        event = record.msg["event"]
        subject = next((record.msg[k] for k in ("stage", "list", "run") if k in record.msg), None)
        if event in _ENDS:
            assert (_ENDS[event], subject) in lasting, f"{event} of {subject} without its start"
            lasting.remove((_ENDS[event], subject))
        elif event in _ENDS.values():
            assert (event, subject) not in lasting, f"{event} of {subject} twice"
            lasting.add((event, subject))
    assert not lasting, f"{lasting} without their ends"


def assert_log_has_abort(records: Sequence[LogRecord], types: Collection[EventType]) -> None:
    """Fail unless the log says all that has happened to an abort."""
    events = {record.msg["event"] for record in records if isinstance(record.msg, dict)}
    missing = {_ABORT_EVENTS[kind] for kind in types if kind in _ABORT_EVENTS} - events
    assert not missing, f"never logged: {missing}"


def logged_warnings(records: Sequence[LogRecord]) -> set[str]:
    """Return the events that were logged as warnings."""
    return {
        record.msg["event"]
        for record in records
        if isinstance(record.msg, dict) and record.levelno >= WARNING
    }


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Fail if the process takes too much more at any one time during the block."""
    # Tracing each allocation would make the decoding of large answers five times slower.
    memory.return_unused()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
    before = _peak_bytes()
    yield
    grown = _peak_bytes() - before
    assert grown < MAX_BYTES, f"{grown / 1e6:.0f} MB"


def _peak_bytes() -> int:
    """Return the greatest resident memory of this process."""
    [line] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) * 1024
