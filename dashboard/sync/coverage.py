"""Measure coverage: the share of stages and lists that have been read, and the time to complete it.

Pages, the API and the commands all use it. A stage counts as unread while its runs in flight are
not known (`schedule.find_gap`): it was never read, or not since a long outage.
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
    """The fields of a stage that coverage needs."""

    @property
    def name(self) -> str: ...
    @property
    def error(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many stages and catalog lists have been read."""

    total: int = 0  # stages
    unread: int = 0  # stages
    outdated: int = 0  # unread stages that were read before a long outage
    failing: int = 0  # unread stages that can't be read
    # Stage names (such as Production) with no unread stage, while other names have some.
    complete_stages: tuple[str, ...] = ()
    unlisted: int = 0  # catalog lists that were never read
    has_project_list: bool = True  # the list of projects has been read
    seconds_left: float | None = None  # estimate until all is read; None: unknown

    @property
    def read_count(self) -> int:
        """How many stages have been read."""
        return self.total - self.unread

    @property
    def is_complete(self) -> bool:
        """Whether the project list, all other lists and all stages have been read."""
        return self.has_project_list and not self.unread and not self.unlisted

    @property
    def text(self) -> str:
        """One sentence on what is not read yet and the time left; empty if complete."""
        if self.is_complete:
            return ""
        if not self.has_project_list:
            return _("Incomplete: projects not loaded yet.")
        parts = [self._unread_text()] if self.unread else []
        if self.unlisted:
            template = ngettext(
                "pipelines of %(n)d project not loaded yet",
                "pipelines of %(n)d projects not loaded yet",
                self.unlisted,
            )
            parts.append(template % {"n": self.unlisted})
        if self.failing:
            failing_template = ngettext(
                "%(n)d of them cannot be read", "%(n)d of them cannot be read", self.failing
            )
            parts.append(failing_template % {"n": self.failing})
        if self.complete_stages:
            names = _(" and ").join(self.complete_stages)
            parts.append(_("%(stages)s complete") % {"stages": names})
        if self.seconds_left is not None and self.seconds_left < 60:
            parts.append(_("less than a minute left"))
        elif self.seconds_left is not None:
            time_left = durations.format_rounded(timedelta(seconds=self.seconds_left))
            parts.append(_("about %(time)s left") % {"time": time_left})
        return _("Incomplete: %(details)s.") % {"details": ", ".join(parts)}

    def _unread_text(self) -> str:
        if self.outdated == self.unread:
            template = ngettext(
                "%(unread)s of %(total)s stage not re-read yet",
                "%(unread)s of %(total)s stages not re-read yet",
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
    """Return the coverage of these stages alone, without lists and time left."""
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
    """Return the coverage of `stages` and catalog `lists`, with an estimate of the time left.

    Pass those that the user may see, without removed ones.
    """
    coverage = measure_stages(stages, now)
    unread_lists = list(lists.filter(synced_at=None).values_list("project", flat=True))
    # Neither stages nor lists: nothing has been read yet, which is not an empty account.
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
    """Like `measure`, but load the needed fields of `stages` first."""
    fields = ("name", "error", "has_flow", "synced_at", "fresh_until", "in_flight_incomplete")
    return measure(stages.order_by().only(*fields), lists, now)


def _estimate_seconds_left(reads: int, now: datetime) -> float | None:
    """Return the seconds that `reads` first reads take; None while nothing can be read."""
    last_heartbeat_at = (
        Worker.objects.order_by("-heartbeat_at").values_list("heartbeat_at", flat=True).first()
    )
    if last_heartbeat_at is None or not freshness.is_alive(last_heartbeat_at, now):
        return None  # no worker is running
    if Upstream.objects.exclude(error="").exists():
        return None
    read_budget = budget_store.load(now)
    if read_budget.is_paused:
        return None
    return schedule.estimate_seconds(reads, read_budget, budget_store.load_limit())
