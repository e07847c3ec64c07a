"""What was promised of each stage's age, whether it was kept, and how to say so. Pure.

The sync promises with each reading by when the next one follows: the interval of the stage's class
as it is planned then (`Stage.fresh_until`). What fails, waits or is hurried later changes nothing
about the promise.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

GRACE = timedelta(seconds=30)  # a reading takes time, and its turn comes when a hand is free
HEARTBEAT_TIMEOUT = timedelta(seconds=30)  # a worker gives a sign of life each 5 s, or is gone


def is_stale(fresh_until: datetime | None, now: datetime) -> bool:
    """Say whether what is shown is older than promised; None: it was never read."""
    return fresh_until is not None and fresh_until + GRACE < now


def is_alive(heartbeat_at: datetime, now: datetime) -> bool:
    """Say whether a worker was heard of lately."""
    return now - heartbeat_at <= HEARTBEAT_TIMEOUT


@dataclass(frozen=True, slots=True)
class SyncState:
    """What the verdict over the whole mirror is made of."""

    stages: int
    stale: int = 0
    incomplete: str = ""  # what was not looked at yet, as a sentence
    failing: int = 0
    failing_lists: int = 0
    partial_lists: int = 0  # lists of which a part was not taken
    workers: int = 0
    last_heartbeat_at: datetime | None = None  # the last sign of life of any worker
    upstream_error: str = ""  # of the whole account, as a sentence
    upstream_error_since: datetime | None = None
    backoff_until: datetime | None = None
    remaining: int = 0  # requests of this hour, as far as is known
    limit: int = 0
    is_probing: bool = False  # a pause that a 429 asked for is over, and nothing was answered since
    is_restricted: bool = False  # to what somebody may see who may not see all


@dataclass(frozen=True, slots=True)
class SyncHealth:
    """One sentence on the state of the mirror."""

    tone: str
    text: str
    since: datetime | None = None
    until: datetime | None = None
    has_banner: bool = False  # every page tells it already, and why

    @property
    def is_syncing(self) -> bool:
        """Whether anybody reads Northflank at all."""
        return self.tone != "bad"


def assess(state: SyncState) -> SyncHealth:
    """Say the worst that is true, else that all is well."""
    if not state.workers:
        if state.last_heartbeat_at is None:
            return SyncHealth("bad", _("Nobody reads Northflank: no worker is at work."))
        return SyncHealth(
            "bad",
            _("Nobody reads Northflank: no worker was heard of"),
            since=state.last_heartbeat_at,
        )
    if state.backoff_until is not None:
        return SyncHealth(
            "warning",
            _paused_message(state),
            since=state.upstream_error_since,
            until=state.backoff_until,
        )
    if state.is_probing:
        text = _("Northflank asked for a pause, which is over: one request tries, then all go on")
        return SyncHealth("warning", text)
    if state.upstream_error:
        text = _("Northflank can’t be read")
        return SyncHealth("warning", text, since=state.upstream_error_since, has_banner=True)
    if not state.stages and state.is_restricted:
        return SyncHealth("info", no_access_message())
    if state.incomplete:
        return SyncHealth("warning", f"{state.incomplete} {problems_message(state)}".strip())
    if not state.stages:
        return SyncHealth("info", _("This token sees no pipeline."))
    if state.stale or state.failing or state.failing_lists or state.partial_lists:
        return SyncHealth("warning", problems_message(state))
    template = ngettext(
        "The one stage is as fresh as promised.",
        "All %(n)d stages are as fresh as promised.",
        state.stages,
    )
    return SyncHealth("good", template % {"n": state.stages})


def _paused_message(state: SyncState) -> str:
    if not state.remaining:
        return _("Northflank refuses requests, since this hour’s are spent,")
    template = _("Northflank asks for a pause (429), with %(left)s of %(limit)s requests left,")
    return template % {"left": f"{state.remaining:,}", "limit": f"{state.limit:,}"}


def no_access_message() -> str:
    """Say that the person's rights reach nothing that is here."""
    return _("There is nothing here that you may see.")


def problems_message(state: SyncState) -> str:
    """Say what is late or can't be read, in one sentence for each; empty where nothing is."""
    sentences = []
    if state.stale:
        template = ngettext(
            "%(n)d of %(stages)s is older than promised.",
            "%(n)d of %(stages)s are older than promised.",
            state.stale,
        )
        sentences.append(_format_share(template, state.stale, state.stages))
    if state.failing:
        failing = ngettext(
            "%(n)d stage can’t be read.", "%(n)d stages can’t be read.", state.failing
        )
        sentences.append(failing % {"n": state.failing})
    if state.failing_lists:
        failing_lists = ngettext(
            "%(n)d list of the catalog can’t be read.",
            "%(n)d lists of the catalog can’t be read.",
            state.failing_lists,
        )
        sentences.append(failing_lists % {"n": state.failing_lists})
    if state.partial_lists:
        partial_lists = ngettext(
            "%(n)d list could be taken only in part.",
            "%(n)d lists could be taken only in part.",
            state.partial_lists,
        )
        sentences.append(partial_lists % {"n": state.partial_lists})
    return " ".join(sentences)


def partial_list_message(unreadable_count: int, surplus_count: int) -> str:
    """Say what of a list was not taken; empty where all of it was.

    `left_out` are entries that can't be read, `surplus` those beyond what was asked for.
    """
    sentences = []
    if unreadable_count:
        unreadable = ngettext(
            "%(n)d entry of Northflank’s list can’t be read, and is not shown.",
            "%(n)d entries of Northflank’s list can’t be read, and are not shown.",
            unreadable_count,
        )
        sentences.append(unreadable % {"n": unreadable_count})
    if surplus_count:
        surplus_entries = ngettext(
            "Northflank’s list was longer than asked for: %(n)d entry was not taken.",
            "Northflank’s list was longer than asked for: %(n)d entries were not taken.",
            surplus_count,
        )
        sentences.append(surplus_entries % {"n": surplus_count})
    return " ".join(sentences)


def _format_share(template: str, count: int, total: int) -> str:
    stages = ngettext("%(n)d stage", "%(n)d stages", total) % {"n": total}
    return template % {"n": count, "stages": stages}
