"""How long a run can be acknowledged, and under an acknowledgement."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dashboard.models import Run
from dashboard.runs import acknowledgements

NOW = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)


def run(status: str = "running", **fields: Any) -> Run:
    concluded = status in {"success", "failure", "aborted", "skipped"}
    defaults = {
        "concluded": concluded,
        "in_flight": not concluded,
        "ended_at": NOW - timedelta(hours=1) if concluded else None,
    }
    return Run(status=status, **defaults | fields)


@pytest.mark.parametrize(
    ("shown", "wanted", "goes_on", "over"),
    [
        (run(), False, True, False),
        (run(overdue_severity=1), True, True, False),
        (run(overdue_severity=2), True, True, False),
        (run("approval_wait", approval_since=NOW), True, True, False),
        (run("aborting"), False, True, False),
        (run("aborting", abort_severity=1), True, True, False),
        (run("failure"), True, True, False),
        (run("failure", ended_at=NOW - acknowledgements.MAX_FAILURE_AGE), False, False, False),
        (run("success"), False, False, True),
        (run("success", overdue_severity=2), False, False, True),
        (run("aborted"), False, False, True),
        (run(in_flight=False, overdue_severity=2), False, False, True),  # removed from Northflank
    ],
)
def test_run_can_be_acknowledged_by_status_and_overdue_severity(
    shown: Run, wanted: bool, goes_on: bool, over: bool
) -> None:
    assert acknowledgements.can_be_acknowledged(shown, NOW) is wanted
    assert acknowledgements.is_open(shown, NOW) is goes_on
    assert acknowledgements.is_resolved(shown) is over
