"""How much of Northflank is known: what was read, what was not yet, and how long that takes.

One answer for all pages, the API and the commands. A stage counts as not read while nobody knows
what is in flight there (schedule.gap): never read, or not since a long outage.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard.models import CatalogueSweep, Stage, Upstream, Worker
from dashboard.runs import durations
from dashboard.sync import freshness, schedule
from dashboard.sync.schedule import ReadState
from dashboard.upstream import budget_store


class StageState(ReadState, Protocol):
    """A stage, as far as coverage goes."""

    @property
    def name(self) -> str: ...
    @property
    def error(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much is known of the stages, and of the lists that tell which there are."""

    total: int = 0  # stages
    unread: int = 0  # of them
    lost: int = 0  # of those: they were read before a long outage
    failing: int = 0  # of those: they can't be read
    whole: tuple[str, ...] = ()  # names of stages of which none is unread, while others are
    lists: int = 0  # lists of the catalogue that were never read
    listed: bool = True  # the list of the projects was
    seconds_left: float | None = None  # until all is read, roughly; None: nobody can say

    @property
    def read(self) -> int:
        """How many stages were read."""
        return self.total - self.unread

    @property
    def complete(self) -> bool:
        """Say whether everything was looked at."""
        return self.listed and not self.unread and not self.lists

    @property
    def text(self) -> str:
        """What is not known yet, and for how long, as one sentence; empty where all is known."""
        if self.complete:
            return ""
        if not self.listed:
            return _("Incomplete: Northflank’s projects have not been listed yet.")
        said = [self._unread()] if self.unread else []
        if self.lists:
            lists = ngettext(
                "the pipelines of %(n)d project not listed yet",
                "the pipelines of %(n)d projects not listed yet",
                self.lists,
            )
            said.append(lists % {"n": self.lists})
        if self.failing:
            failing = ngettext(
                "%(n)d of them can’t be read", "%(n)d of them can’t be read", self.failing
            )
            said.append(failing % {"n": self.failing})
        if self.whole:
            whole = _(" and ").join(self.whole)
            said.append(_("all of %(stages)s read") % {"stages": whole})
        if self.seconds_left is not None and self.seconds_left < 60:
            said.append(_("less than a minute left"))
        elif self.seconds_left is not None:
            left = durations.roughly(timedelta(seconds=self.seconds_left))
            said.append(_("about %(time)s left") % {"time": left})
        return _("Incomplete: %(said)s.") % {"said": ", ".join(said)}

    def _unread(self) -> str:
        if self.lost == self.unread:
            stages = ngettext(
                "%(unread)s of %(total)s stage not read again yet",
                "%(unread)s of %(total)s stages not read again yet",
                self.total,
            )
        else:
            stages = ngettext(
                "%(unread)s of %(total)s stage not read yet",
                "%(unread)s of %(total)s stages not read yet",
                self.total,
            )
        return stages % {"unread": f"{self.unread:,}", "total": f"{self.total:,}"}


def measure_stages(stages: Iterable[StageState], now: datetime) -> Coverage:
    """Return how much is known of some stages, whatever else there is."""
    total, lost, failing = 0, 0, 0
    unread: list[str] = []
    names: set[str] = set()
    for stage in stages:
        total += 1
        names.add(stage.name)
        if schedule.gap(stage, now) is not None:
            unread.append(stage.name)
            lost += stage.synced_at is not None and not stage.in_flight_unread
            failing += bool(stage.error)
    whole = tuple(name for name in schedule.FIRST if unread and name in names - set(unread))
    return Coverage(total, len(unread), lost, failing, whole)


def measure(
    stages: Iterable[StageState], lists: QuerySet[CatalogueSweep], now: datetime
) -> Coverage:
    """Return how much is known of all `stages`, and how long it takes until all is.

    `lists` are those of the catalogue. Of both, all that somebody may see and is not gone.
    """
    known = measure_stages(stages, now)
    unread = list(lists.filter(swept_at=None).values_list("project", flat=True))
    # Before anything was read there is neither: that is no empty account.
    begun = known.total > 0 or lists.filter(project=None).exists() or Stage.objects.exists()
    known = replace(known, lists=len(unread), listed=begun and None not in unread)
    waiting = known.unread - known.failing + known.lists
    if known.listed and waiting:
        return replace(known, seconds_left=_seconds_left(waiting, now))
    return known


def load(stages: QuerySet[Stage], lists: QuerySet[CatalogueSweep], now: datetime) -> Coverage:
    """Return the same of stages that are not loaded yet."""
    fields = ("name", "error", "has_flow", "synced_at", "promised_at", "in_flight_unread")
    return measure(stages.order_by().only(*fields), lists, now)


def _seconds_left(reads: int, now: datetime) -> float | None:
    """Return how long so many first reads take, as reading goes at present."""
    heard_of = Worker.objects.order_by("-beat_at").values_list("beat_at", flat=True).first()
    if heard_of is None or not freshness.is_alive(heard_of, now):
        return None  # nobody reads
    if Upstream.objects.exclude(error="").exists():
        return None
    spend = budget_store.allowance(now)
    if spend.paused:
        return None
    return schedule.seconds_to_read(reads, spend, budget_store.limit())
