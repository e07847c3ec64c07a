"""The start page: runs that need attention, other runs in flight, and failures of the last day."""

from collections.abc import Collection
from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from dashboard.models import Run
from dashboard.web.components import in_flight, tab_title
from dashboard.web.components.aborts import abort_all
from dashboard.web.components.data_age import DataAge
from dashboard.web.components.in_flight import Counts
from dashboard.web.components.lists import empty_states
from dashboard.web.components.runs import run_row
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.live.page import LivePart, Page, page_response, render_part
from dashboard.web.live.snapshot import Snapshot

# Rows per table; a longer page can no longer be read at a glance.
MAX_IN_FLIGHT = 200
MAX_CONCLUDED = 50


@require_safe
def now(request: HttpRequest) -> HttpResponse:
    """Show the runs in flight, and those aborted or failed recently."""
    return page_response(request, NowPage(Snapshot.for_request(request)))


class NowPage(Page):
    name = nav = "now"

    @property
    def has_runs_in_flight(self) -> bool:
        return bool(self.snapshot.in_flight_by_stage)

    @cached_property
    def is_aborting(self) -> bool:
        return in_flight.has_open_aborts(self.permissions)

    @cached_property
    def counts(self) -> Counts:
        return in_flight.load_counts(
            self.permissions, self.snapshot.now, self.snapshot.in_flight_by_stage
        )

    @cached_property
    def data_age(self) -> DataAge:
        return in_flight.data_age(
            self.permissions, self.snapshot.stages, self.snapshot.in_flight_by_stage, self.counts
        )

    @property
    def tab_title(self) -> TabTitle:
        totals = in_flight.title_totals(
            self.snapshot.in_flight_by_stage, has_recent_failure=self.counts.recently_failed > 0
        )
        return tab_title.now(
            self.counts.in_flight,
            totals,
            upstream_down=self.upstream_down,
            incomplete=bool(self.data_age.incomplete_text),
        )

    def context(self, request: HttpRequest) -> dict[str, Any]:
        overdue, recent_failures, overdue_queued, on_time, aborted, earlier_failures = (
            list(table.values())
            for table in run_row.render_tables(
                [
                    in_flight.overdue(self.permissions)[:MAX_IN_FLIGHT],
                    in_flight.recently_failed(self.permissions, self.snapshot.now)[:MAX_CONCLUDED],
                    in_flight.overdue_in_queue(self.permissions)[:MAX_IN_FLIGHT],
                    in_flight.on_time(self.permissions)[:MAX_IN_FLIGHT],
                    in_flight.recently_aborted(self.permissions, self.snapshot.now)[:MAX_CONCLUDED],
                    in_flight.failed_earlier(self.permissions, self.snapshot.now)[:MAX_CONCLUDED],
                ],
                self.permissions,
            )
        )
        return {
            "has_attention_list": bool(overdue or recent_failures or overdue_queued or on_time),
            "attention_rows": [*overdue, *recent_failures, *overdue_queued],
            "in_flight_rows": on_time,
            "aborted_rows": aborted,
            "failed_rows": earlier_failures,
            "counts": self.counts,
            "abort_all": abort_all.offer_for_now(self.permissions),
            "denied_reason": self.permissions.abort_denied_reasons(
                stage
                for stage in self.snapshot.stages
                if stage.pk in self.snapshot.in_flight_by_stage
            ),
            "attention_empty": self._attention_empty,
            "in_flight_empty": self._in_flight_empty,
            "failed_empty": self._failed_empty,
        }

    def own_status_parts(self) -> list[LivePart]:
        return [
            *(
                render_part(
                    section,
                    f"pages/now.html#{section}-title",
                    counts=self.counts,
                    data_age=self.data_age,
                )
                for section in ("attention", "in-flight", "aborted", "failed")
            ),
            *(
                render_part(empty.id, "components/run_row.html#empty", empty=empty)
                for empty in (self._attention_empty, self._in_flight_empty, self._failed_empty)
            ),
        ]

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        parts = self.row_parts(runs, self._is_listed)
        offer = abort_all.offer_for_now(self.permissions)
        if offer:
            template = "pages/bulk_abort_confirm.html#abort-all"
            parts.append(render_part(offer.id, template, abort_all=offer))
        return parts

    def _is_listed(self, run: Run) -> bool:
        # A run that was aborted here changes the counts, and with them the page's structure.
        return self.is_recent(run) and (run.in_flight or run.status == "failure")

    @property
    def _attention_empty(self) -> empty_states.EmptyState:
        return empty_states.attention(self.data_age, self.snapshot.stages)

    @property
    def _in_flight_empty(self) -> empty_states.EmptyState:
        return empty_states.in_flight(
            self.permissions, self.data_age, self.snapshot.stages, self.counts.overdue
        )

    @property
    def _failed_empty(self) -> empty_states.EmptyState:
        return empty_states.failures(self.permissions, self.data_age, self.counts.recently_failed)
