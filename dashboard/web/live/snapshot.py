"""What pages read from the database at one time, each thing once."""

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from django.http import HttpRequest

from dashboard.accounts.identity import permissions_of, version_of
from dashboard.accounts.permissions import Permissions
from dashboard.db import threads as db_threads
from dashboard.db.prepared import Keys, PreparedQuery
from dashboard.models import Stage
from dashboard.runs.attention import AttentionRun
from dashboard.sync.reports import sync_state
from dashboard.sync.reports.report import Report
from dashboard.sync.reports.sync_state import SyncState
from dashboard.web.components import in_flight
from dashboard.web.components.in_flight import InFlightTotals
from dashboard.web.http import lookup, site_context
from dashboard.web.http.site_context import SiteContext


class StageInFlight(NamedTuple):
    """What Now needs of a stage with runs in flight, of which there may be hundreds."""

    pk: int
    name: str
    project_pk: int
    has_flow: bool | None
    synced_at: datetime | None
    fresh_until: datetime | None


@dataclass
class Snapshot:
    """The data of pages for one audience: all users who may view the same stages.

    It is loaded when it is first needed. `version` is the latest change, read before any of it.
    """

    permissions: Permissions
    version: int
    now: datetime
    site: SiteContext
    _memoized: dict[Hashable, Any] = field(default_factory=dict, init=False)

    @classmethod
    def for_request(cls, request: HttpRequest) -> "Snapshot":
        return cls(
            permissions_of(request),
            version_of(request),
            db_threads.now(),
            site_context.for_request(request),
        )

    @cached_property
    def sync(self) -> SyncState:
        """Whether the sync reads as planned."""
        return sync_state.load(self.now)

    @cached_property
    def report(self) -> Report:
        """What has been read of the visible stages and lists, and what is wrong."""
        return lookup.report_query(self.permissions).load(self.sync)

    @cached_property
    def in_flight_stages(self) -> list[StageInFlight]:
        """The visible stages with runs in flight."""
        rows = _stages_query(self.permissions).fetch(stages=self.in_flight_by_stage)
        return [StageInFlight(*row) for row in rows]

    @cached_property
    def in_flight_by_stage(self) -> dict[int, InFlightTotals]:
        """The totals of the visible runs in flight, by stage key."""
        return in_flight.in_flight_by_stage(self.permissions, self.now)

    @cached_property
    def attention(self) -> list[AttentionRun]:
        """The visible runs that need attention, in the order of runs/attention.py."""
        return in_flight.load_attention(self.permissions, self.now)

    @property
    def title_totals(self) -> InFlightTotals:
        """The totals for the tab titles of pages about all runs."""
        has_failure = any(not run.is_in_flight for run in self.attention)
        return in_flight.combine(self.in_flight_by_stage.values(), has_recent_failure=has_failure)

    def totals_of(self, stages: Collection[Stage]) -> InFlightTotals:
        """Return the totals for the tab title of a page about some stages."""
        keys = {stage.pk for stage in stages}
        return in_flight.combine(
            [totals for key, totals in self.in_flight_by_stage.items() if key in keys],
            has_recent_failure=any(
                run.stage in keys and not run.is_in_flight for run in self.attention
            ),
        )

    def memoized[T](self, key: Hashable, build: Callable[[], T]) -> T:
        """Return what `build` returns, built once for all pages of the snapshot."""
        if key not in self._memoized:
            self._memoized[key] = build()
        value: T = self._memoized[key]
        return value


@lru_cache(maxsize=100)
def _stages_query(permissions: Permissions) -> PreparedQuery:
    visible = Stage.objects.listed().filter(permissions.stage_filter())
    fields = "pk", "name", "pipeline__project", "has_flow", "synced_at", "fresh_until"
    return PreparedQuery(visible.filter(pk__in=Keys("stages")).values_list(*fields))
