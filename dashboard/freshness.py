"""What was promised of each stage's age, whether it was kept, and how to say so. Pure.

The sync promises with each reading by when the next one follows: the interval of the stage's class
as it is planned then (`Stage.promised_at`). What fails, waits or is hurried later changes nothing
about the promise.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

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
    unread: int = 0
    failing: int = 0
    lists_failing: int = 0
    workers: int = 0
    heard_of: datetime | None = None  # the last sign of life of any worker
    trouble: str = ""  # of the whole account, as a sentence
    trouble_since: datetime | None = None
    refused_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence on the state of the mirror."""

    tone: str
    text: str
    since: datetime | None = None
    until: datetime | None = None

    @property
    def sees(self) -> bool:
        """Whether anybody reads Northflank at all."""
        return self.tone != "bad"


def verdict(facts: Facts) -> Verdict:
    """Say the worst that is true, else that all is well."""
    if not facts.workers:
        if facts.heard_of is None:
            return Verdict("bad", "Nobody reads Northflank: no worker is at work.")
        return Verdict(
            "bad", "Nobody reads Northflank: no worker was heard of", since=facts.heard_of
        )
    if facts.refused_until is not None:
        return Verdict(
            "warning",
            "Northflank refuses requests, since this hour’s are spent,",
            since=facts.trouble_since,
            until=facts.refused_until,
        )
    if facts.trouble:
        return Verdict("warning", "Northflank can’t be read", since=facts.trouble_since)
    if not facts.stages:
        return Verdict("info", "No pipeline has been read from Northflank yet.")
    if facts.late or facts.failing or facts.lists_failing:
        return Verdict("warning", in_part(facts))
    if facts.unread:
        return Verdict("info", _of_all(facts.unread, facts.stages, "not been read yet", "has"))
    if facts.stages == 1:
        return Verdict("good", "The one stage is as fresh as promised.")
    return Verdict("good", f"All {facts.stages} stages are as fresh as promised.")


def in_part(facts: Facts) -> str:
    """Say what is late or can't be read, in one sentence for each; empty where nothing is."""
    said = []
    if facts.late:
        said.append(_of_all(facts.late, facts.stages, "older than promised", "is"))
    if facts.failing:
        said.append(f"{_count(facts.failing, 'stage')} can’t be read.")
    if facts.lists_failing:
        said.append(f"{_count(facts.lists_failing, 'list')} of the catalogue can’t be read.")
    return " ".join(said)


def _of_all(some: int, of: int, state: str, verb: str) -> str:
    plural = {"is": "are", "has": "have"}[verb]
    return f"{some} of {_count(of, 'stage')} {verb if some == 1 else plural} {state}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
