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

from dashboard.models import CatalogSync, Stage, Upstream, Worker
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
    outdated: int = 0  # of those: they were read before a long outage
    failing: int = 0  # of those: they can't be read
    complete_stages: tuple[
        str, ...
    ] = ()  # names of stages of which none is unread, while others are
    unlisted: int = 0  # lists of the catalog that were never read
    has_project_list: bool = True  # the list of the projects was
    seconds_left: float | None = None  # until all is read, roughly; None: nobody can say

    @property
    def read_count(self) -> int:
        """How many stages were read."""
        return self.total - self.unread

    @property
    def is_complete(self) -> bool:
        """Say whether everything was looked at."""
        return self.has_project_list and not self.unread and not self.unlisted

    @property
    def text(self) -> str:
        """What is not known yet, and for how long, as one sentence; empty where all is known."""
        if self.is_complete:
            return ""
        if not self.has_project_list:
            return _("Incomplete: Northflank’s projects have not been listed yet.")
        parts = [self._unread_text()] if self.unread else []
        if self.unlisted:
            template = ngettext(
                "the pipelines of %(n)d project not listed yet",
                "the pipelines of %(n)d projects not listed yet",
                self.unlisted,
            )
            parts.append(template % {"n": self.unlisted})
        if self.failing:
            failing_template = ngettext(
                "%(n)d of them can’t be read", "%(n)d of them can’t be read", self.failing
            )
            parts.append(failing_template % {"n": self.failing})
        if self.complete_stages:
            names = _(" and ").join(self.complete_stages)
            parts.append(_("all of %(stages)s read") % {"stages": names})
        if self.seconds_left is not None and self.seconds_left < 60:
            parts.append(_("less than a minute left"))
        elif self.seconds_left is not None:
            time_left = durations.format_rounded(timedelta(seconds=self.seconds_left))
            parts.append(_("about %(time)s left") % {"time": time_left})
        return _("Incomplete: %(said)s.") % {"said": ", ".join(parts)}

    def _unread_text(self) -> str:
        if self.outdated == self.unread:
            template = ngettext(
                "%(unread)s of %(total)s stage not read again yet",
                "%(unread)s of %(total)s stages not read again yet",
                self.total,
            )
        else:
            template = ngettext(
                "%(unread)s of %(total)s stage not read yet",
                "%(unread)s of %(total)s stages not read yet",
                self.total,
            )
        return template % {"unread": f"{self.unread:,}", "total": f"{self.total:,}"}


def measure_stages(stages: Iterable[StageState], now: datetime) -> Coverage:
    """Return how much is known of some stages, whatever else there is."""
    total, outdated, failing = 0, 0, 0
    unread_names: list[str] = []
    names: set[str] = set()
    for stage in stages:
        total += 1
        names.add(stage.name)
        if schedule.find_gap(stage, now) is not None:
            unread_names.append(stage.name)
            outdated += stage.synced_at is not None and not stage.in_flight_incomplete
            failing += bool(stage.error)
    complete_stages = tuple(
        name
        for name in schedule.FIRST_READ_ORDER
        if unread_names and name in names - set(unread_names)
    )
    return Coverage(total, len(unread_names), outdated, failing, complete_stages)


def measure(stages: Iterable[StageState], lists: QuerySet[CatalogSync], now: datetime) -> Coverage:
    """Return how much is known of all `stages`, and how long it takes until all is.

    `lists` are those of the catalog. Of both, all that somebody may see and is not gone.
    """
    coverage = measure_stages(stages, now)
    unread_lists = list(lists.filter(synced_at=None).values_list("project", flat=True))
    # Before anything was read there is neither: that is no empty account.
    has_started = (
        coverage.total > 0 or lists.filter(project=None).exists() or Stage.objects.exists()
    )
    coverage = replace(
        coverage,
        unlisted=len(unread_lists),
        has_project_list=has_started and None not in unread_lists,
    )
    pending_reads = coverage.unread - coverage.failing + coverage.unlisted
    if coverage.has_project_list and pending_reads:
        return replace(coverage, seconds_left=_estimate_seconds_left(pending_reads, now))
    return coverage


def load(stages: QuerySet[Stage], lists: QuerySet[CatalogSync], now: datetime) -> Coverage:
    """Return the same of stages that are not loaded yet."""
    fields = ("name", "error", "has_flow", "synced_at", "fresh_until", "in_flight_incomplete")
    return measure(stages.order_by().only(*fields), lists, now)


def _estimate_seconds_left(reads: int, now: datetime) -> float | None:
    """Return how long so many first reads take, as reading goes at present."""
    last_heartbeat_at = (
        Worker.objects.order_by("-heartbeat_at").values_list("heartbeat_at", flat=True).first()
    )
    if last_heartbeat_at is None or not freshness.is_alive(last_heartbeat_at, now):
        return None  # nobody reads
    if Upstream.objects.exclude(error="").exists():
        return None
    read_budget = budget_store.load(now)
    if read_budget.is_paused:
        return None
    return schedule.estimate_seconds(reads, read_budget, budget_store.load_limit())
