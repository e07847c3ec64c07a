"""Measure coverage: the share of stages and lists that have been read, and the time to complete it.

Pages, the API and the commands all use it. A stage counts as unread while its runs in flight are
not known (`schedule.find_gap`): it was never read, or not since a long outage.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from django.utils.translation import gettext_lazy, ngettext

from dashboard.models import Upstream
from dashboard.sync import lead, schedule
from dashboard.sync.schedule import ReadState
from dashboard.texts import durations
from dashboard.texts.rich_text import Message, MessageTable, RichText, join_texts, to_text
from dashboard.upstream import budget_store

_text = MessageTable(
    {
        "incomplete": gettext_lazy("Incomplete: %(details)s."),
        "no_project_list": gettext_lazy("Incomplete: projects not loaded yet."),
        # The details. The number of all stages is `n`.
        "unread": lambda n: ngettext(
            "%(unread)s of %(total)s stage not read yet",
            "%(unread)s of %(total)s stages not read yet",
            n,
        ),
        "outdated": lambda n: ngettext(
            "%(unread)s of %(total)s stage not re-read yet",
            "%(unread)s of %(total)s stages not re-read yet",
            n,
        ),
        "unlisted": lambda n: ngettext(
            "pipelines of %(n)d project not loaded yet",
            "pipelines of %(n)d projects not loaded yet",
            n,
        ),
        "failing": lambda n: ngettext(
            "%(n)d of them cannot be read", "%(n)d of them cannot be read", n
        ),
        "complete_stages": gettext_lazy("%(stages)s complete"),
        "and": gettext_lazy(" and "),
        "last_minute": gettext_lazy("less than a minute left"),
        "time_left": gettext_lazy("about %(time)s left"),
    }
)


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
    def is_complete(self) -> bool:
        """Whether the project list, all other lists and all stages have been read."""
        return self.has_project_list and not self.unread and not self.unlisted

    @property
    def text(self) -> str:
        """The message as plain text; empty if complete."""
        return to_text(self.message)

    @property
    def message(self) -> RichText:
        """One sentence on what is not read yet and the time left; empty if complete."""
        if self.is_complete:
            return ""
        if not self.has_project_list:
            return _text("no_project_list")
        details: list[RichText] = [self._unread_text()] if self.unread else []
        if self.unlisted:
            details.append(_text("unlisted", n=self.unlisted))
        if self.failing:
            details.append(_text("failing", n=self.failing))
        if self.complete_stages:
            names = str(_text("and")).join(self.complete_stages)
            details.append(_text("complete_stages", stages=names))
        if self.seconds_left is not None and self.seconds_left < 60:
            details.append(_text("last_minute"))
        elif self.seconds_left is not None:
            time = durations.format_rounded(timedelta(seconds=self.seconds_left))
            details.append(_text("time_left", time=time))
        return _text("incomplete", details=join_texts(*details, separator=", "))

    def _unread_text(self) -> Message:
        key = "outdated" if self.outdated == self.unread else "unread"
        return _text(key, n=self.total, unread=f"{self.unread:,}", total=f"{self.total:,}")


def measure_stages(
    stages: Iterable[StageState], now: datetime, totals_by_name: Mapping[str, int] | None = None
) -> Coverage:
    """Return the coverage of these stages alone, without lists and time left.

    With `totals_by_name`, the number of all stages by name, those not in `stages` have no gap.
    """
    stages = list(stages)
    totals_by_name = totals_by_name or Counter(stage.name for stage in stages)
    unread = [stage for stage in stages if schedule.find_gap(stage, now) is not None]
    unread_names = {stage.name for stage in unread}
    return Coverage(
        total=sum(totals_by_name.values()),
        unread=len(unread),
        outdated=sum(
            stage.synced_at is not None and not stage.in_flight_incomplete for stage in unread
        ),
        failing=sum(bool(stage.error) for stage in unread),
        complete_stages=tuple(
            name
            for name in schedule.FIRST_READ_ORDER
            if unread and name in totals_by_name.keys() - unread_names
        ),
    )


def measure(stages: Coverage, *, unlisted: int, has_project_list: bool, now: datetime) -> Coverage:
    """Return the coverage of `stages` with that of the catalog's lists and the time left.

    `unlisted` is the number of lists that were never read; `has_project_list`: the list of projects
    has been read.
    """
    coverage = replace(stages, unlisted=unlisted, has_project_list=has_project_list)
    pending_reads = coverage.unread - coverage.failing + coverage.unlisted
    if coverage.has_project_list and pending_reads:
        return replace(coverage, seconds_left=_estimate_seconds_left(pending_reads, now))
    return coverage


def _estimate_seconds_left(reads: int, now: datetime) -> float | None:
    """Return the seconds that `reads` first reads take; None while nothing can be read."""
    if not lead.is_alive(lead.load(), now):
        return None  # no worker is running
    if Upstream.objects.exclude(error="").exists():
        return None
    read_budget = budget_store.load(now)
    if read_budget.is_paused:
        return None
    return schedule.estimate_seconds(reads, read_budget, budget_store.load_limit())
