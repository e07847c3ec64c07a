"""Aborting a run: write the act down, send it, keep what Northflank says, follow it to the end.

`pressing` writes down, `sending` sends, `repeating` sends again what may not have arrived,
`following` adopts and settles, `many` does so for a list. Import from here.

Source: https://northflank.com/docs/v1/api/project/pipelines/abort-release-flow-run says that 200
means accepted. It does not say what happens to a run that has concluded, nor how long aborting
lasts, so after anything but a 2xx the run is read again before we say what is true.
"""

from dashboard.aborts.bulk import MOST, TooMany, begin, held_until, request_many, visible
from dashboard.aborts.reconcile import (
    hand_over,
    keep_looking,
    let_go,
    look_after_open_aborts,
    orphan_all,
)
from dashboard.aborts.request import (
    REASON_LENGTH,
    NotAllowed,
    NotInFlight,
    Press,
    Pressed,
    ReasonMissing,
    may_try_again,
    reason_required,
    request,
)
from dashboard.aborts.send import answered, send

__all__ = [
    "MOST",
    "REASON_LENGTH",
    "NotAllowed",
    "NotInFlight",
    "Press",
    "Pressed",
    "ReasonMissing",
    "TooMany",
    "answered",
    "begin",
    "hand_over",
    "held_until",
    "keep_looking",
    "let_go",
    "look_after_open_aborts",
    "may_try_again",
    "orphan_all",
    "reason_required",
    "request",
    "request_many",
    "send",
    "visible",
]
