"""The start page: runs that need attention, other runs in flight, and failures of the last day."""

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_safe

from dashboard.models import Run
from dashboard.models.runs import RunQuerySet
from dashboard.runs.attention import AttentionRun
from dashboard.web.components import in_flight, tab_title
from dashboard.web.components.data_age import DataAge
from dashboard.web.components.lists import empty_states
from dashboard.web.components.runs import run_row
from dashboard.web.components.runs.run_row import RowKey
from dashboard.web.components.runs.run_section import RunSection, WaitingRuns
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.http import links
from dashboard.web.live.page import LivePart, Page, page_response, render_part
from dashboard.web.live.snapshot import Snapshot

# Rows per table; a longer page can no longer be read at a glance.
MAX_IN_FLIGHT = 200
MAX_CONCLUDED = 50
MAX_WAITING_LINKS = 20  # below one run


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
    def data_age(self) -> DataAge:
        snapshot = self.snapshot
        return in_flight.data_age(self.permissions, snapshot.stages, snapshot.in_flight_by_stage)

    @property
    def tab_title(self) -> TabTitle:
        return tab_title.now(
            self._in_flight_count,
            self.snapshot.title_totals,
            upstream_down=self.upstream_down,
            incomplete=bool(self.data_age.incomplete_text),
        )

    @property
    def tag_values(self) -> tuple[object, ...]:
        # Runs join and leave the sections with time alone.
        return tuple((section.name, section.count, section.rows) for section in self.sections)

    def context(self, request: HttpRequest) -> dict[str, Any]:
        keys = [key for section in self.sections for key in section.rows]
        html_by_pk = run_row.render_rows(keys, self.permissions)
        return {
            "sections": [section.render(html_by_pk) for section in self.sections],
            "may_abort": self.permissions.can_abort_anywhere,
            "denied_reason": self._denied_reason,
        }

    def own_status_parts(self) -> list[LivePart]:
        return [
            LivePart(section.id, section.render({}), rows=tuple(section.rows))
            for section in self.sections
        ]

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        parts = self.row_parts(runs, lambda _run: False)  # the sections list new runs
        parts.append(
            render_part(
                "denied-reason",
                "components/run_row.html#denied-reason",
                denied_reason=self._denied_reason,
            )
        )
        return parts

    @cached_property
    def sections(self) -> list[RunSection]:
        """The sections; a run is listed only in the first to which it belongs.

        Counts are those of the listed rows, as long as all rows are listed.
        """
        permissions, now = self.snapshot.permissions, self.snapshot.now
        is_incomplete = bool(self.data_age.incomplete_text)
        attention, others = self._attention_rows, self._other_rows
        aborted_runs = in_flight.recently_aborted(permissions, now)
        aborted = _without(run_row.row_keys(aborted_runs[:MAX_CONCLUDED]), attention, others)
        earlier_failures = in_flight.failed_earlier(permissions, now)
        failed = _without(
            run_row.row_keys(earlier_failures[:MAX_CONCLUDED]), attention, others, aborted
        )
        most_recent = _("Showing the %(n)d most recent of %(total)d.")
        attention_count = len(self.snapshot.attention)
        aborted_count = _count(aborted, MAX_CONCLUDED, aborted_runs)
        failed_count = _count(failed, MAX_CONCLUDED, earlier_failures)
        recently_failed = attention_count - self._attention_in_flight
        return [
            RunSection(
                "attention",
                _("Needs attention"),
                _("Runs that need attention, Production first"),
                attention_count,
                attention,
                is_incomplete=is_incomplete,
                truncated_text=_truncated_text(
                    attention,
                    attention_count,
                    _("Showing %(n)d of %(total)d, Production and the most severe first."),
                ),
                empty=empty_states.attention(self.data_age, self.snapshot.stages),
                is_hidden=not (attention or others),
                is_announced=True,
                waiting=self._waiting_runs() if attention else {},
            ),
            RunSection(
                "in-flight",
                _("In flight"),
                _("Other runs in flight"),
                self._in_flight_count,
                others,
                note=self._in_flight_note,
                is_incomplete=is_incomplete,
                truncated_text=_truncated_text(
                    others, self._other_count, _("Showing %(n)d of %(total)d.")
                ),
                empty=empty_states.in_flight(
                    permissions, self.data_age, self.snapshot.stages, self._attention_in_flight
                ),
            ),
            RunSection(
                "aborted",
                _("Aborted here in the last hour"),
                _("Runs that were aborted here in the last hour"),
                aborted_count,
                aborted,
                truncated_text=_truncated_text(aborted, aborted_count, most_recent),
                is_hidden=not aborted,
            ),
            RunSection(
                "failed",
                _("Failed in the last day"),
                _("Runs that failed in the last day"),
                recently_failed + failed_count,
                failed,
                note=_listed_above_text(recently_failed),
                is_incomplete=is_incomplete,
                truncated_text=_truncated_text(failed, failed_count, most_recent),
                empty=empty_states.failures(permissions, self.data_age, recently_failed),
            ),
        ]

    @cached_property
    def _attention_rows(self) -> list[RowKey]:
        listed = [run.pk for run in self.snapshot.attention[:MAX_IN_FLIGHT]]
        keys = {key.pk: key for key in run_row.row_keys(Run.objects.filter(pk__in=listed))}
        return [keys[pk] for pk in listed if pk in keys]

    @cached_property
    def _other_runs(self) -> RunQuerySet:
        return in_flight.others_in_flight(self.snapshot.permissions, self.snapshot.now)

    @cached_property
    def _other_rows(self) -> list[RowKey]:
        return _without(run_row.row_keys(self._other_runs[:MAX_IN_FLIGHT]), self._attention_rows)

    @cached_property
    def _other_count(self) -> int:
        return _count(self._other_rows, MAX_IN_FLIGHT, self._other_runs)

    @property
    def _attention_in_flight(self) -> int:
        return sum(run.is_in_flight for run in self.snapshot.attention)

    @property
    def _in_flight_count(self) -> int:
        return self._attention_in_flight + self._other_count

    @property
    def _in_flight_note(self) -> str:
        above = _listed_above_text(self._attention_in_flight)
        count = len(self.snapshot.in_flight_by_stage)
        if not count:
            return above
        stages = ngettext("in %(n)d stage", "in %(n)d stages", count) % {"n": count}
        return f"{stages} {above}".strip()

    def _waiting_runs(self) -> Mapping[int, WaitingRuns]:
        """Return the waiting runs by the key of the worst older run in flight of their stage."""
        in_flight_of_stage: dict[int, list[AttentionRun]] = {}
        for run in self.snapshot.attention:
            if run.is_in_flight:
                in_flight_of_stage.setdefault(run.stage, []).append(run)
        behind: dict[int, list[Run]] = {}
        waiting = in_flight.waiting_runs(self.snapshot.permissions, self.snapshot.now)
        for waiting_run in waiting.with_stage().without_detail():
            for ahead in in_flight_of_stage.get(waiting_run.stage_id, ()):
                if ahead.since <= waiting_run.created_at:
                    behind.setdefault(ahead.pk, []).append(waiting_run)
                    break
        return {
            pk: WaitingRuns(
                len(runs), [(run.title, links.run_url(run)) for run in runs[:MAX_WAITING_LINKS]]
            )
            for pk, runs in behind.items()
        }

    @property
    def _denied_reason(self) -> str:
        in_flight_stages = self.snapshot.in_flight_by_stage
        return self.permissions.abort_denied_reasons(
            stage for stage in self.snapshot.stages if stage.pk in in_flight_stages
        )


def _without(rows: list[RowKey], *others: list[RowKey]) -> list[RowKey]:
    # A run may have moved from one section to another between their queries.
    listed = {key.pk for other in others for key in other}
    return [key for key in rows if key.pk not in listed]


def _count(rows: list[RowKey], limit: int, runs: RunQuerySet) -> int:
    """Return how many `runs` there are; `rows` are the first of them, up to about `limit`."""
    # A few rows may be missing, which another section lists: see `_without`.
    return len(rows) if len(rows) < limit - 10 else runs.count()


def _listed_above_text(count: int) -> str:
    # The count of a section includes the runs that are listed under “Needs attention”.
    return _("(%(n)d listed above)") % {"n": count} if count else ""


def _truncated_text(rows: list[RowKey], total: int, text: str) -> str:
    return text % {"n": len(rows), "total": total} if len(rows) < total else ""
