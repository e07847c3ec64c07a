"""One table: what each status that Northflank sends is called, means and looks like.

A status outside the table is shown as itself: the list has grown before.
"""

from collections.abc import Iterable
from dataclasses import dataclass

# Tones and glyphs are names; static/dashboard.css and templates/icons.html give them their looks.


@dataclass(frozen=True, slots=True)
class Look:
    """How a status is shown: a word, one plain sentence, a tone and a glyph."""

    word: str
    sentence: str
    tone: str
    glyph: str


# https://northflank.com/docs/v1/api/project/pipelines/list-release-flow-runs
RUN: dict[str, Look] = {
    "pending": Look("Pending", "It is scheduled and has not started.", "waiting", "clock"),
    "queued": Look(
        "Queued", "It waits for an earlier run of this stage to end.", "waiting", "queue"
    ),
    "running": Look("Running", "Its steps are being carried out.", "running", "play"),
    "waiting": Look("Waiting", "A step waits for its work to finish.", "running", "hourglass"),
    "retrying": Look("Retrying", "A step failed and is being tried again.", "warning", "retry"),
    "async_wait": Look(
        "Waiting outside", "A step waits for an answer from outside Northflank.", "waiting", "link"
    ),
    "approval_wait": Look(
        "Needs approval", "A step waits for people to approve it.", "people", "person"
    ),
    "aborting": Look(
        "Aborting", "Northflank accepted the abort and has not finished it.", "warning", "stop"
    ),
    "aborted": Look("Aborted", "It was aborted.", "neutral", "stop"),
    "success": Look("Success", "All its steps succeeded.", "good", "check"),
    "failure": Look("Failed", "A step failed.", "bad", "cross"),
    "skipped": Look("Skipped", "Northflank did not carry it out.", "neutral", "skip"),
    "unknown": Look("Unknown", "Northflank gives its status as unknown.", "neutral", "question"),
}

# https://northflank.com/docs/v1/api/project/pipelines/get-release-flow-run-details
# A node has no status before it starts, and none for "running": see `of_step`.
STEP: dict[str, Look] = {
    "pending": Look("Not started", "Earlier steps come first.", "neutral", "clock"),
    "running": Look("Running", "It has started and not ended.", "running", "play"),
    "waiting": Look("Waiting", "It waits for its work to finish.", "running", "hourglass"),
    "retrying": Look("Retrying", "It failed and is being tried again.", "warning", "retry"),
    "async_wait": Look(
        "Waiting outside", "It waits for an answer from outside Northflank.", "waiting", "link"
    ),
    "approval_wait": Look(
        "Needs approval", "It waits for people to approve it.", "people", "person"
    ),
    "aborting": Look("Aborting", "It is being aborted.", "warning", "stop"),
    "aborted": Look("Aborted", "It was aborted.", "neutral", "stop"),
    "success": Look("Success", "It succeeded.", "good", "check"),
    "failure": Look("Failed", "It failed.", "bad", "cross"),
    "invalid": Look("Invalid", "Northflank could not carry it out as written.", "bad", "cross"),
    "skipped": Look("Skipped", "It was left out.", "neutral", "skip"),
    "unknown": Look("Unknown", "Northflank gives its status as unknown.", "neutral", "question"),
}


def of_run(status: str) -> Look:
    """Return how a run's status is shown; one we do not know is shown as sent."""
    return RUN.get(status) or _as_sent(status)


def of_step(status: str | None, *, started: bool, ended: bool, run_in_flight: bool) -> Look:
    """Return how a step's status is shown, inferring what Northflank has no word for.

    A step without a status has started or not; in a run that is over it will never start.
    """
    if status:
        return STEP.get(status) or _as_sent(status)
    if not run_in_flight:
        return Look("Not carried out", "The run ended before it.", "neutral", "skip")
    return STEP["running"] if started and not ended else STEP["pending"]


def most_urgent(run_statuses: Iterable[str]) -> Look | None:
    """Return the look of the status that wants a person most, or None where none wants one."""
    looks = [look for look in map(of_run, run_statuses) if look.tone in _URGENT]
    return min(looks, key=lambda look: _URGENT.index(look.tone), default=None)


_URGENT = ("bad", "warning", "people")  # tones, the most urgent first


def _as_sent(status: str) -> Look:
    return Look(status, "This dashboard does not know that status.", "neutral", "question")
