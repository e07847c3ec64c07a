"""What was promised of each stage's age, whether it was kept, and how to say so. Pure.

The sync promises with each reading by when the next one follows: the interval of the stage's class
as it is planned then (`Stage.promised_at`). What fails, waits or is hurried later changes nothing
about the promise.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

GRACE = timedelta(seconds=30)  # a reading takes time, and its turn comes when a hand is free
HEARD_OF = timedelta(seconds=30)  # a worker gives a sign of life each 5 s, or is gone


def is_late(promised_at: datetime | None, now: datetime) -> bool:
    """Say whether what is shown is older than promised; None: it was never read."""
    return promised_at is not None and promised_at + GRACE < now


def is_alive(beat_at: datetime, now: datetime) -> bool:
    """Say whether a worker was heard of lately."""
    return now - beat_at <= HEARD_OF


@dataclass(frozen=True, slots=True)
class Facts:
    """What the verdict over the whole mirror is made of."""

    stages: int
    late: int = 0
    incomplete: str = ""  # what was not looked at yet, as a sentence
    failing: int = 0
    lists_failing: int = 0
    partial: int = 0  # lists of which a part was not taken
    workers: int = 0
    heard_of: datetime | None = None  # the last sign of life of any worker
    trouble: str = ""  # of the whole account, as a sentence
    trouble_since: datetime | None = None
    refused_until: datetime | None = None
    left: int = 0  # requests of this hour, as far as is known
    limit: int = 0
    probing: bool = False  # a pause that a 429 asked for is over, and nothing was answered since
    limited: bool = False  # to what somebody may see who may not see all


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence on the state of the mirror."""

    tone: str
    text: str
    since: datetime | None = None
    until: datetime | None = None
    told: bool = False  # every page tells it already, and why

    @property
    def sees(self) -> bool:
        """Whether anybody reads Northflank at all."""
        return self.tone != "bad"


def verdict(facts: Facts) -> Verdict:
    """Say the worst that is true, else that all is well."""
    if not facts.workers:
        if facts.heard_of is None:
            return Verdict("bad", _("Nobody reads Northflank: no worker is at work."))
        return Verdict(
            "bad", _("Nobody reads Northflank: no worker was heard of"), since=facts.heard_of
        )
    if facts.refused_until is not None:
        return Verdict(
            "warning", _paused(facts), since=facts.trouble_since, until=facts.refused_until
        )
    if facts.probing:
        text = _("Northflank asked for a pause, which is over: one request tries, then all go on")
        return Verdict("warning", text)
    if facts.trouble:
        text = _("Northflank can’t be read")
        return Verdict("warning", text, since=facts.trouble_since, told=True)
    if not facts.stages and facts.limited:
        return Verdict("info", nothing_seen())
    if facts.incomplete:
        return Verdict("warning", f"{facts.incomplete} {in_part(facts)}".strip())
    if not facts.stages:
        return Verdict("info", _("This token sees no pipeline."))
    if facts.late or facts.failing or facts.lists_failing or facts.partial:
        return Verdict("warning", in_part(facts))
    said = ngettext(
        "The one stage is as fresh as promised.",
        "All %(n)d stages are as fresh as promised.",
        facts.stages,
    )
    return Verdict("good", said % {"n": facts.stages})


def _paused(facts: Facts) -> str:
    if not facts.left:
        return _("Northflank refuses requests, since this hour’s are spent,")
    said = _("Northflank asks for a pause (429), with %(left)s of %(limit)s requests left,")
    return said % {"left": f"{facts.left:,}", "limit": f"{facts.limit:,}"}


def nothing_seen() -> str:
    """Say that the person's rights reach nothing that is here."""
    return _("There is nothing here that you may see.")


def in_part(facts: Facts) -> str:
    """Say what is late or can't be read, in one sentence for each; empty where nothing is."""
    said = []
    if facts.late:
        late = ngettext(
            "%(n)d of %(stages)s is older than promised.",
            "%(n)d of %(stages)s are older than promised.",
            facts.late,
        )
        said.append(_of_all(late, facts.late, facts.stages))
    if facts.failing:
        failing = ngettext(
            "%(n)d stage can’t be read.", "%(n)d stages can’t be read.", facts.failing
        )
        said.append(failing % {"n": facts.failing})
    if facts.lists_failing:
        lists = ngettext(
            "%(n)d list of the catalogue can’t be read.",
            "%(n)d lists of the catalogue can’t be read.",
            facts.lists_failing,
        )
        said.append(lists % {"n": facts.lists_failing})
    if facts.partial:
        partial = ngettext(
            "%(n)d list could be taken only in part.",
            "%(n)d lists could be taken only in part.",
            facts.partial,
        )
        said.append(partial % {"n": facts.partial})
    return " ".join(said)


def partial(left_out: int, surplus: int) -> str:
    """Say what of a list was not taken; empty where all of it was.

    `left_out` are entries that can't be read, `surplus` those beyond what was asked for.
    """
    said = []
    if left_out:
        unreadable = ngettext(
            "%(n)d entry of Northflank’s list can’t be read, and is not shown.",
            "%(n)d entries of Northflank’s list can’t be read, and are not shown.",
            left_out,
        )
        said.append(unreadable % {"n": left_out})
    if surplus:
        longer = ngettext(
            "Northflank’s list was longer than asked for: %(n)d entry was not taken.",
            "Northflank’s list was longer than asked for: %(n)d entries were not taken.",
            surplus,
        )
        said.append(longer % {"n": surplus})
    return " ".join(said)


def _of_all(said: str, some: int, of: int) -> str:
    stages = ngettext("%(n)d stage", "%(n)d stages", of) % {"n": of}
    return said % {"n": some, "stages": stages}
