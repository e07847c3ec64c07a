"""The fields of one abort of each kind."""

from datetime import UTC, datetime, timedelta
from typing import Any

from dashboard.models.abort_lifecycle import AbortState

NOON = datetime(2026, 3, 31, 12, 0, tzinfo=UTC)


def settled_fields(state: AbortState, **fields: Any) -> dict[str, Any]:
    """Return the fields of an abort in this state, settled 41 seconds after its request at noon."""
    times = {"requested_at": NOON, "settled_at": NOON + timedelta(seconds=41)}
    return {"state": state, **times, **fields}


FIELDS_BY_KIND: dict[str, dict[str, Any]] = {
    "under_way": {"state": AbortState.ACCEPTED},
    "aborted": settled_fields(AbortState.CONCLUDED, outcome="aborted"),
    "status_changed": settled_fields(AbortState.CONCLUDED, outcome="aborted", run_status="running"),
    "ended": settled_fields(AbortState.CONCLUDED, outcome="FAILED", work_concluded=True),
    "not_stopped": settled_fields(AbortState.CONCLUDED, outcome="success"),
    "too_late": settled_fields(AbortState.TOO_LATE, outcome="success"),
    "removed": settled_fields(AbortState.TOO_LATE, response="No such thing.", response_status=404),
    "refused": settled_fields(AbortState.REFUSED, response="No.", response_status=409),
    "not_sent": settled_fields(AbortState.NOT_SENT, response="No way."),
    "not_arrived": settled_fields(AbortState.UNKNOWN, response="Timed out."),
    "aborted_again": settled_fields(AbortState.ABORTED_AGAIN),
}
