"""What has been read of Northflank, how soon the rest is, and what is wrong: one report, from which
pages, texts, the API and the commands all read.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet
from django.utils.translation import gettext_lazy, ngettext

from dashboard.db.expressions import count_if
from dashboard.db.prepared import PreparedQuery
from dashboard.models import CatalogSync, Stage
from dashboard.models.catalog import StageQuerySet
from dashboard.sync.reports import sync_state, totals
from dashboard.sync.reports.sync_state import SyncHealth, SyncState
from dashboard.sync.reports.totals import NameTotals, ReadStage, TotalsQuery
from dashboard.texts.rich_text import Message, MessageTable, RichText, join_texts, to_text

_text = MessageTable(
    {
        "incomplete": gettext_lazy("Incomplete: %(details)s."),
        "no_project_list": gettext_lazy("Incomplete: projects not read yet."),
        # The details. The number of all stages is `n`.
        "unread": lambda n: ngettext(
            "%(unread)s of %(total)s stage not read yet",
            "%(unread)s of %(total)s stages not read yet",
            n,
        ),
        "unlisted": lambda n: ngettext(
            "pipelines of %(n)d project not read yet",
            "pipelines of %(n)d projects not read yet",
            n,
        ),
        "unread_failing": lambda n: ngettext(
            "%(n)d of them cannot be read", "%(n)d of them cannot be read", n
        ),
        "complete_stages": gettext_lazy("%(stages)s complete"),
        "and": gettext_lazy(" and "),
        # Problems.
        "stale": lambda n: ngettext(
            "%(n)d of %(stages)s is out of date.", "%(n)d of %(stages)s are out of date.", n
        ),
        "stages": lambda n: ngettext("%(n)d stage", "%(n)d stages", n),
        "failing": lambda n: ngettext(
            "%(n)d stage cannot be read.", "%(n)d stages cannot be read.", n
        ),
        "failing_lists": lambda n: ngettext(
            "%(n)d project or pipeline list cannot be read.",
            "%(n)d project or pipeline lists cannot be read.",
            n,
        ),
        # No problem.
        "no_access": gettext_lazy("No pipelines that you can see."),
        "no_pipelines": gettext_lazy("The API token has access to no pipelines."),
        "as_planned": lambda n: ngettext(
            "%(n)d stage is up to date.", "All %(n)d stages are up to date.", n
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Report:
    """What has been read of some stages and catalog lists."""

    sync: SyncState
    names: Sequence[NameTotals] = ()  # Production first
    failing_lists: int = 0
    unlisted: int = 0  # catalog lists that were never read
    has_project_list: bool = True  # the list of projects has been read
    is_restricted: bool = False  # the user may not see everything

    def total(self, field: str) -> int:
        """Return the sum of a field of `NameTotals`."""
        return sum(getattr(name, field) for name in self.names)

    @property
    def stages(self) -> int:
        return self.total("stages")

    @property
    def with_flow(self) -> int:
        return self.total("with_flow")

    @property
    def unread(self) -> int:
        return self.total("unread")

    @property
    def oldest_sync_at(self) -> datetime | None:
        """The first of the last reads of the stages with a flow or, if none has one, of all."""
        field = "oldest_with_flow" if self.with_flow else "oldest"
        return min(filter(None, (getattr(name, field) for name in self.names)), default=None)

    @property
    def has_old_reads(self) -> bool:
        """Whether some of these are out of date, for however long."""
        return self.total("old_with_flow" if self.with_flow else "old") > 0

    @property
    def new_runs_within(self) -> int | None:
        """Within how many seconds new runs of Production, else of the next stage, show as planned.

        None: not known.
        """
        intervals = (name.longest_interval for name in self.names)
        return next((round(interval) for interval in intervals if interval is not None), None)

    @property
    def is_complete(self) -> bool:
        """Whether the project list, all other lists and all stages have been read."""
        return self.has_project_list and not self.unread and not self.unlisted

    @property
    def incomplete_text(self) -> str:
        """What has not been read yet, as plain text; empty if complete."""
        return to_text(self.incomplete)

    @property
    def incomplete(self) -> RichText:
        """One sentence on what is not read yet; empty if complete."""
        if self.is_complete:
            return ""
        if not self.has_project_list:
            return _text("no_project_list")
        details: list[RichText] = [self._unread_text()] if self.unread else []
        if self.unlisted:
            details.append(_text("unlisted", n=self.unlisted))
        if failing := self.total("unread_failing"):
            details.append(_text("unread_failing", n=failing))
        if self.unread and (names := [name.name for name in self.names if not name.unread]):
            details.append(_text("complete_stages", stages=str(_text("and")).join(names)))
        return _text("incomplete", details=join_texts(*details, separator=", "))

    def _unread_text(self) -> Message:
        return _text("unread", n=self.stages, unread=f"{self.unread:,}", total=f"{self.stages:,}")

    @property
    def problems(self) -> RichText:
        """One sentence for each kind of problem (stale, unreadable); empty if none."""
        counts = {
            "stale": self.total("stale"),
            "failing": self.total("failing"),
            "failing_lists": self.failing_lists,
        }
        stages = _text("stages", n=self._shown_stages)
        return join_texts(*(_text(key, n=n, stages=stages) for key, n in counts.items() if n))

    @property
    def _shown_stages(self) -> int:
        # Without those that have no release flow, unless there are only those.
        return self.with_flow or self.stages

    @property
    def no_access(self) -> Message | str:
        """That the user may see none of the stages; empty if they may, or these are not listed."""
        is_empty = not self.stages and self.is_restricted and self.is_complete
        return _text("no_access") if is_empty else ""

    @property
    def health(self) -> SyncHealth:
        """The worst problem, else that all is read as planned."""
        if pause := self.sync.pause:
            return pause
        if not self.is_complete:
            return SyncHealth("warning", join_texts(self.incomplete, self.problems))
        if not self.stages:
            return SyncHealth("info", self.no_access or _text("no_pipelines"))
        if self.problems:
            return SyncHealth("warning", self.problems)
        return SyncHealth("good", _text("as_planned", n=self._shown_stages))


class ReportQuery:
    """The composed queries for the report on some stages and catalog lists."""

    def __init__(
        self,
        stages: StageQuerySet,
        lists: QuerySet[CatalogSync],
        *,
        is_restricted: bool = False,
    ) -> None:
        """Pass those that the user may see, without removed ones."""
        self._names = TotalsQuery(stages)
        self._lists = PreparedQuery(_count_lists(lists))
        self._is_restricted = is_restricted

    def load(self, sync: SyncState) -> Report:
        """Return the report, as of the time of the sync's state."""
        names = self._names.load(sync.now)
        failing, unlisted, of_projects, of_projects_unread = (
            count or 0 for count in self._lists.fetch()[0]
        )
        # Neither stages nor lists: nothing has been read yet, which is not an empty account.
        has_started = bool(names) or of_projects or Stage.objects.exists()
        return Report(
            sync,
            names,
            failing_lists=failing,
            unlisted=unlisted,
            has_project_list=bool(has_started) and not of_projects_unread,
            is_restricted=self._is_restricted,
        )


def load(stages: StageQuerySet, lists: QuerySet[CatalogSync], now: datetime) -> Report:
    """Return the report on `stages` and catalog `lists`; see `ReportQuery`."""
    return ReportQuery(stages, lists).load(sync_state.load(now))


def of_stages(stages: Iterable[ReadStage], sync: SyncState) -> Report:
    """Return the report on these loaded stages alone, without lists."""
    return Report(sync, totals.count(stages, sync.now))


def _count_lists(lists: QuerySet[CatalogSync]) -> QuerySet[Any, Any]:
    of_projects, is_unread = Q(project=None), Q(synced_at=None)
    return lists.order_by().values_list(
        count_if(~Q(error="")),
        count_if(is_unread),
        count_if(of_projects),
        count_if(of_projects & is_unread),
    )
