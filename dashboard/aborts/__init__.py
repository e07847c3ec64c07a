"""Abort runs: record the request, send it, store Northflank's answer, reconcile until settled.

`request` records an abort, `send` sends it, `resend` repeats one that may not have arrived,
`settle` ends one, `reconcile` adopts aborts of dead processes. `bulk_request` and `bulk_send` do
the same for several runs.
Import these functions from the package.

Source: https://northflank.com/docs/v1/api/project/pipelines/abort-release-flow-run documents 200
as accepted. It documents neither the effect on a concluded run nor how long aborting lasts, so
after a refusal or an unclear answer the run is read again before the abort is settled.
"""

from dashboard.aborts.abort_rules import can_retry
from dashboard.aborts.bulk_request import (
    MAX_RUNS,
    MAX_RUNS_WITHOUT_COUNT,
    TooManyRuns,
    WrongCount,
    count_required,
    request_bulk_abort,
    too_many_text,
    visible_runs,
)
from dashboard.aborts.bulk_send import Pause, find_pause, start_bulk_abort
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
    reason_required,
    request_abort,
)
from dashboard.aborts.send import send_abort, wait_for_answer

__all__ = [
    "MAX_REASON_LENGTH",
    "MAX_RUNS",
    "MAX_RUNS_WITHOUT_COUNT",
    "AbortRequest",
    "AbortResult",
    "NotAllowed",
    "NotInFlight",
    "Pause",
    "ReasonMissing",
    "TooManyRuns",
    "WrongCount",
    "can_retry",
    "cancel_tasks",
    "count_required",
    "find_pause",
    "reason_required",
    "reconcile_in_background",
    "reconcile_open_aborts",
    "release_all_leases",
    "release_lease",
    "request_abort",
    "request_bulk_abort",
    "send_abort",
    "start_bulk_abort",
    "too_many_text",
    "visible_runs",
    "wait_for_answer",
]
