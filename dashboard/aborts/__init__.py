"""Aborting a run: write the act down, send it, keep what Northflank says, follow it to the end.

`pressing` writes down, `sending` sends, `repeating` sends again what may not have arrived,
`following` adopts and settles, `many` does so for a list. Import from here.

Source: https://northflank.com/docs/v1/api/project/pipelines/abort-release-flow-run says that 200
means accepted. It does not say what happens to a run that has concluded, nor how long aborting
lasts, so after anything but a 2xx the run is read again before we say what is true.
"""

from dashboard.aborts.bulk import (
    MAX_RUNS,
    TooManyRuns,
    paused_until,
    request_bulk_abort,
    start_bulk_abort,
    visible_runs,
)
from dashboard.aborts.reconcile import (
    cancel_tasks,
    reconcile_in_background,
    reconcile_open_aborts,
    release_all_leases,
    release_lease,
)
from dashboard.aborts.request import (
    MAX_REASON_LENGTH,
    AbortRequest,
    AbortResult,
    NotAllowed,
    NotInFlight,
    ReasonMissing,
    can_retry,
    reason_required,
    request_abort,
)
from dashboard.aborts.send import send_abort, wait_for_answer

__all__ = [
    "MAX_REASON_LENGTH",
    "MAX_RUNS",
    "AbortRequest",
    "AbortResult",
    "NotAllowed",
    "NotInFlight",
    "ReasonMissing",
    "TooManyRuns",
    "can_retry",
    "cancel_tasks",
    "paused_until",
    "reason_required",
    "reconcile_in_background",
    "reconcile_open_aborts",
    "release_all_leases",
    "release_lease",
    "request_abort",
    "request_bulk_abort",
    "send_abort",
    "start_bulk_abort",
    "visible_runs",
    "wait_for_answer",
]
