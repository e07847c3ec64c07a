"""One table: what each status that Northflank sends is called, means and looks like.

A status outside the table is shown as itself: the list has grown before.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

# Tones and glyphs are names; static/dashboard.css and templates/icons.html give them their looks.


@dataclass(frozen=True, slots=True)
class Look:
    """How a status is shown: a word, one plain sentence, a tone and a glyph."""

    called: str | Promise
    means: str | Promise
    tone: str
    glyph: str

    @property
    def word(self) -> str:
        """What the status is called."""
        return str(self.called)

    @property
    def sentence(self) -> str:
        """What it means."""
        return str(self.means)


# https://northflank.com/docs/v1/api/project/pipelines/list-release-flow-runs
RUN: dict[str, Look] = {
    "pending": Look(
        gettext_lazy("Pending"),
        gettext_lazy("It is scheduled and has not started."),
        "waiting",
        "clock",
    ),
    "queued": Look(
        gettext_lazy("Queued"),
        gettext_lazy("It waits for an earlier run of this stage to end."),
        "waiting",
        "queue",
    ),
    "running": Look(
        gettext_lazy("Running"), gettext_lazy("Its steps are being carried out."), "running", "play"
    ),
    "waiting": Look(
        gettext_lazy("Waiting"),
        gettext_lazy("A step waits for its work to finish."),
        "running",
        "hourglass",
    ),
    "retrying": Look(
        gettext_lazy("Retrying"),
        gettext_lazy("A step failed and is being tried again."),
        "warning",
        "retry",
    ),
    "async_wait": Look(
        gettext_lazy("Waiting outside"),
        gettext_lazy("A step waits for an answer from outside Northflank."),
        "waiting",
        "link",
    ),
    "approval_wait": Look(
        gettext_lazy("Needs approval"),
        gettext_lazy("A step waits for people to approve it."),
        "people",
        "person",
    ),
    "aborting": Look(
        gettext_lazy("Aborting"),
        gettext_lazy("Northflank accepted the abort and has not finished it."),
        "warning",
        "stop",
    ),
    "aborted": Look(gettext_lazy("Aborted"), gettext_lazy("It was aborted."), "neutral", "stop"),
    "success": Look(
        gettext_lazy("Success"), gettext_lazy("All its steps succeeded."), "good", "check"
    ),
    "failure": Look(gettext_lazy("Failed"), gettext_lazy("A step failed."), "bad", "cross"),
    "skipped": Look(
        gettext_lazy("Skipped"), gettext_lazy("Northflank did not carry it out."), "neutral", "skip"
    ),
    "unknown": Look(
        gettext_lazy("Unknown"),
        gettext_lazy("Northflank gives its status as unknown."),
        "neutral",
        "question",
    ),
}

# https://northflank.com/docs/v1/api/project/pipelines/get-release-flow-run-details
# A node has no status before it starts, and none for "running": see `of_step`.
STEP: dict[str, Look] = {
    "pending": Look(
        gettext_lazy("Not started"), gettext_lazy("Earlier steps come first."), "neutral", "clock"
    ),
    "running": Look(
        gettext_lazy("Running"), gettext_lazy("It has started and not ended."), "running", "play"
    ),
    "waiting": Look(
        gettext_lazy("Waiting"),
        gettext_lazy("It waits for its work to finish."),
        "running",
        "hourglass",
    ),
    "retrying": Look(
        gettext_lazy("Retrying"),
        gettext_lazy("It failed and is being tried again."),
        "warning",
        "retry",
    ),
    "async_wait": Look(
        gettext_lazy("Waiting outside"),
        gettext_lazy("It waits for an answer from outside Northflank."),
        "waiting",
        "link",
    ),
    "approval_wait": Look(
        gettext_lazy("Needs approval"),
        gettext_lazy("It waits for people to approve it."),
        "people",
        "person",
    ),
    "aborting": Look(
        gettext_lazy("Aborting"), gettext_lazy("It is being aborted."), "warning", "stop"
    ),
    "aborted": Look(gettext_lazy("Aborted"), gettext_lazy("It was aborted."), "neutral", "stop"),
    "success": Look(gettext_lazy("Success"), gettext_lazy("It succeeded."), "good", "check"),
    "failure": Look(gettext_lazy("Failed"), gettext_lazy("It failed."), "bad", "cross"),
    "invalid": Look(
        gettext_lazy("Invalid"),
        gettext_lazy("Northflank could not carry it out as written."),
        "bad",
        "cross",
    ),
    "skipped": Look(gettext_lazy("Skipped"), gettext_lazy("It was left out."), "neutral", "skip"),
    "unknown": Look(
        gettext_lazy("Unknown"),
        gettext_lazy("Northflank gives its status as unknown."),
        "neutral",
        "question",
    ),
}

# The same within a sentence: “the run ended as failed”.
_WITHIN = {
    "pending": pgettext_lazy("status within a sentence", "pending"),
    "queued": pgettext_lazy("status within a sentence", "queued"),
    "running": pgettext_lazy("status within a sentence", "running"),
    "waiting": pgettext_lazy("status within a sentence", "waiting"),
    "retrying": pgettext_lazy("status within a sentence", "retrying"),
    "async_wait": pgettext_lazy("status within a sentence", "waiting outside"),
    "approval_wait": pgettext_lazy("status within a sentence", "needs approval"),
    "aborting": pgettext_lazy("status within a sentence", "aborting"),
    "aborted": pgettext_lazy("status within a sentence", "aborted"),
    "success": pgettext_lazy("status within a sentence", "success"),
    "failure": pgettext_lazy("status within a sentence", "failed"),
    "skipped": pgettext_lazy("status within a sentence", "skipped"),
    "unknown": pgettext_lazy("status within a sentence", "unknown"),
}


GONE = Look(
    gettext_lazy("Gone"),
    gettext_lazy("Northflank no longer knows it; how it ended is unknown."),
    "warning",
    "question",
)


def of_run(status: str, *, gone: bool = False) -> Look:
    """Return how a run's status is shown; one we do not know is shown as sent.

    `gone`: Northflank knew the run no more before it had concluded.
    """
    if gone:
        return GONE
    return RUN.get(status) or _as_sent(status)


def within(status: str) -> str:
    """Return what a run's status is called within a sentence; one we do not know, as sent."""
    return str(_WITHIN.get(status, status))


def of_step(status: str | None, *, started: bool, ended: bool, run_in_flight: bool) -> Look:
    """Return how a step's status is shown, inferring what Northflank has no word for.

    A step without a status has started or not; in a run that is over it will never start.
    """
    if status:
        return STEP.get(status) or _as_sent(status)
    if started and not ended and run_in_flight:
        return STEP["running"]
    if started or ended:
        return replace(STEP["unknown"], means=_("Northflank does not say how it ended."))
    if not run_in_flight:
        return Look(_("Not carried out"), _("The run ended before it."), "neutral", "skip")
    return STEP["pending"]


def most_urgent(run_statuses: Iterable[str]) -> Look | None:
    """Return the look of the status that wants a person most, or None where none wants one."""
    looks = [look for look in map(of_run, run_statuses) if look.tone in _URGENT]
    return min(looks, key=lambda look: _URGENT.index(look.tone), default=None)


_URGENT = ("bad", "warning", "people")  # tones, the most urgent first


def _as_sent(status: str) -> Look:
    return Look(status, _("This dashboard does not know that status."), "neutral", "question")
