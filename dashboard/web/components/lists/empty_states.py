"""Empty states of lists: no match, no data, nothing wrong, or data missing or stale."""

from dataclasses import dataclass, replace
from datetime import datetime

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dashboard.accounts.permissions import Permissions
from dashboard.sync.reports.read_totals import ReadTotals
from dashboard.texts.rich_text import Message, MessageTable
from dashboard.web.components.data_age import DataAge
from dashboard.web.components.lists.filters import ALL_RUNS_URL, RunFilter
from dashboard.web.components.lists.pagination import PageOfRuns
from dashboard.web.http import lookup

_text = MessageTable(
    {
        # Runs that need attention, in flight, or failed in the last day.
        "attention": gettext_lazy("Nothing needs attention."),
        "attention_incomplete": gettext_lazy("Nothing found so far needs attention."),
        "attention_stale": gettext_lazy("Nothing needed attention at the last update."),
        "in_flight": gettext_lazy("No runs in flight."),
        "in_flight_visible": gettext_lazy("No runs in flight that you can see."),
        "in_flight_above": gettext_lazy("All runs in flight are listed above."),
        "in_flight_above_incomplete": gettext_lazy(
            "All runs in flight found so far are listed above."
        ),
        "in_flight_above_stale": gettext_lazy(
            "All runs that were in flight at the last update are listed above."
        ),
        "in_flight_incomplete": gettext_lazy("No runs in flight found so far."),
        "in_flight_stale": gettext_lazy(
            "No runs were in flight at the last update; there may be some now."
        ),
        "in_flight_unread": gettext_lazy("Runs are being read from Northflank."),
        "no_release_flows": gettext_lazy("No stage has a release flow."),
        "no_release_flows_incomplete": gettext_lazy("No stage with a release flow found so far."),
        "no_release_flows_stale": gettext_lazy("No stage had a release flow at the last update."),
        "failures": gettext_lazy("No runs failed in the last day."),
        "failures_visible": gettext_lazy("No runs that you can see failed in the last day."),
        "failures_above": gettext_lazy("All failed runs are listed above."),
        "failures_above_incomplete": gettext_lazy("All failed runs found so far are listed above."),
        "failures_above_stale": gettext_lazy(
            "All runs that had failed at the last update are listed above."
        ),
        "failures_incomplete": gettext_lazy("No failed runs found so far."),
        "failures_stale": gettext_lazy("No failed runs at the last update."),
        "failures_unread": gettext_lazy("Not known yet."),
        # Runs of a stage.
        "runs": gettext_lazy("This stage has no runs yet."),
        "runs_filtered": gettext_lazy("No matching runs."),
        "runs_past_end": gettext_lazy("No more runs."),
        "runs_searched": gettext_lazy("No match in the %(count)s runs searched."),
        "runs_unread": gettext_lazy("The runs of this stage have not been read yet."),
        "no_release_flow": gettext_lazy("This stage has no release flow."),
        # Logs, by the names of their pages.
        "aborts": gettext_lazy("No runs have been aborted from this dashboard yet."),
        "aborts_visible": gettext_lazy(
            "No runs that you can see have been aborted from this dashboard yet."
        ),
        "aborts_filtered": gettext_lazy("No matching aborts."),
        "aborts_past_end": gettext_lazy("No older aborts."),
        "aborts_all": gettext_lazy("Show all aborts"),
        "access_log": gettext_lazy("Nobody has signed in yet."),
        "access_log_filtered": gettext_lazy("No matching events."),
        "access_log_past_end": gettext_lazy("No older events."),
        "access_log_all": gettext_lazy("Show all events"),
        "bulk_aborts": gettext_lazy("No bulk aborts yet."),
        "bulk_aborts_visible": gettext_lazy("No bulk aborts of runs that you can see yet."),
        "bulk_aborts_past_end": gettext_lazy("No older bulk aborts."),
        "rights_changes": gettext_lazy("No rights have been changed yet."),
        "rights_changes_filtered": gettext_lazy("No matching changes."),
        "rights_changes_past_end": gettext_lazy("No older changes."),
        "rights_changes_all": gettext_lazy("Show all changes"),
        # The board.
        "pipelines": gettext_lazy("The API token has access to no pipelines."),
        "pipelines_visible": gettext_lazy("No pipelines that you can see."),
        "pipelines_visible_incomplete": gettext_lazy("No pipelines that you can see so far."),
        "pipelines_filtered": gettext_lazy("No matching pipelines."),
        "pipelines_filtered_incomplete": gettext_lazy("No matching pipelines so far."),
        "pipelines_unread": gettext_lazy("No pipelines have been read from Northflank yet."),
        "projects_unread": gettext_lazy("No projects have been read from Northflank yet."),
        "past_last_page": lambda n: ngettext(
            "The list has only %(n)d page.", "The list has only %(n)d pages.", n
        ),
    }
)


@dataclass(frozen=True, slots=True)
class EmptyState:
    """The text and button in place of an empty list."""

    kind: str
    text: Message
    action_label: Message | str = ""
    action_url: str = ""
    id: str = ""  # of its element, if the stream updates it
    coverage: "StageCoverage | None" = None  # the data that the text relies on


@dataclass(frozen=True, slots=True)
class StageCoverage:
    """The number of synced stages of the total, and the time of the oldest sync."""

    synced_stages: int
    total_stages: int
    oldest_sync_at: datetime

    @property
    def is_partial(self) -> bool:
        """Whether some stages were never synced."""
        return self.synced_stages < self.total_stages


def stage_coverage(totals: ReadTotals) -> StageCoverage | None:
    """Return the coverage of the stages that may have runs, or None if none was ever synced."""
    if not totals.with_flow_read or totals.oldest_sync_at is None:
        return None
    return StageCoverage(totals.with_flow_read, totals.with_flow, totals.oldest_sync_at)


def _limit(data_age: DataAge) -> str:
    """Return the suffix of the text that claims no more than is known; empty: all is known."""
    if data_age.incomplete_text or data_age.synced_at is None:
        return "_incomplete"  # also if the rest is stale: what was never read had no last update
    return "_stale" if data_age.is_stale else ""


def attention(data_age: DataAge, totals: ReadTotals) -> EmptyState:
    """Return the empty state of the runs that need attention; `totals` are of visible stages."""
    if data_age.incomplete_text:  # the line above the list shows the coverage
        return EmptyState("cannot_see", _text("attention_incomplete"), id="empty-attention")
    kind, key = (
        ("cannot_see", "attention_stale") if data_age.is_stale else ("all_well", "attention")
    )
    return EmptyState(kind, _text(key), id="empty-attention", coverage=stage_coverage(totals))


def in_flight(
    permissions: Permissions, data_age: DataAge, totals: ReadTotals, above_count: int = 0
) -> EmptyState:
    """Return the empty state of the runs in flight; `totals` are of the visible stages.

    `above_count` is the number of runs in flight that the page lists above.
    """
    element_id, coverage = "empty-in-flight", stage_coverage(totals)
    kind, limit, is_incomplete = "cannot_see", _limit(data_age), bool(data_age.incomplete_text)
    if above_count:
        kind, key = "above", f"in_flight_above{limit}"
    elif not totals.stages and not permissions.can_view_all and is_incomplete:
        key = "in_flight_incomplete"
    elif not totals.stages and not permissions.can_view_all:
        kind, key = "nothing_seen", "in_flight_visible"
    elif not totals.stages and lookup.is_catalog_loaded():
        empty = pipelines(permissions, is_catalog_loaded=True, is_incomplete=is_incomplete)
        return replace(empty, id=element_id)
    elif not totals.stages:
        key = "pipelines_unread"
    elif coverage is None and not totals.with_flow:
        kind, key = kind if limit else "nothing_exists", f"no_release_flows{limit}"
    elif coverage is None:
        key = "in_flight_unread"
    elif is_incomplete:
        key = "in_flight_incomplete"
    elif data_age.is_stale:
        return EmptyState(kind, _text("in_flight_stale"), id=element_id, coverage=coverage)
    else:
        text = _text("in_flight" if permissions.can_view_all else "in_flight_visible")
        return EmptyState("all_well", text, id=element_id, coverage=coverage)
    return EmptyState(kind, _text(key), id=element_id)


def failures(permissions: Permissions, data_age: DataAge, above_count: int = 0) -> EmptyState:
    """Return the empty state of the visible runs that failed in the last day.

    `above_count` is the number of failed runs that the page lists above.
    """
    kind, limit = "cannot_see", _limit(data_age)
    if above_count:
        kind, key = "above", f"failures_above{limit}"
    elif data_age.synced_at is None:
        key = "failures_unread"
    elif limit:
        key = f"failures{limit}"
    else:
        kind, key = "all_well", "failures" if permissions.can_view_all else "failures_visible"
    return EmptyState(kind, _text(key), id="empty-failed")


def runs(data_age: DataAge, run_filter: RunFilter, page: PageOfRuns) -> EmptyState:
    """Return the empty state of a page of a stage's runs."""
    kind = "nothing_matches"
    if page.scanned:
        text = _text("runs_searched", count=f"{page.scanned:,}")
        return EmptyState(kind, text, _("Search further"), page.newer_url or page.older_url)
    if run_filter.cursor:
        return EmptyState(kind, _text("runs_past_end"), _("Newest"), page.newest_url)
    if data_age.synced_at is None:
        return EmptyState("cannot_see", _text("runs_unread"))
    if run_filter.parameters:
        return EmptyState(kind, _text("runs_filtered"), _("Show all runs"), ALL_RUNS_URL)
    return EmptyState("nothing_exists", _text("runs"))


def log(
    name: str, *, is_past_end: bool, is_filtered: bool = False, sees_all: bool = True
) -> EmptyState:
    """Return the empty state of the page `name`: aborts, bulk aborts, access log, rights changes.

    `sees_all` is whether the user may view all runs.
    """
    kind, url = "nothing_matches", reverse(name)
    if is_filtered:
        return EmptyState(kind, _text(f"{name}_filtered"), _text(f"{name}_all"), url)
    if is_past_end:
        return EmptyState(kind, _text(f"{name}_past_end"), _("Newest"), url)
    return EmptyState("nothing_exists", _text(name if sees_all else f"{name}_visible"))


def pipelines(
    permissions: Permissions,
    *,
    is_catalog_loaded: bool,
    is_incomplete: bool,
    is_filtered: bool = False,
) -> EmptyState:
    """Return the empty state of the board."""
    if is_filtered:
        key = "pipelines_filtered_incomplete" if is_incomplete else "pipelines_filtered"
        return EmptyState("nothing_matches", _text(key), _("Show all pipelines"), reverse("board"))
    kind = "cannot_see"
    if not is_catalog_loaded:
        key = "projects_unread"
    elif not permissions.can_view_all and is_incomplete:
        key = "pipelines_visible_incomplete"
    elif not permissions.can_view_all:
        kind, key = "nothing_exists", "pipelines_visible"
    elif is_incomplete:
        key = "pipelines_unread"
    else:
        kind, key = "nothing_exists", "pipelines"
    return EmptyState(kind, _text(key))


def past_last_page(page_count: int, last_url: str) -> EmptyState:
    """Return the empty state of a page of the board that does not exist."""
    text = _text("past_last_page", n=page_count)
    return EmptyState("nothing_matches", text, _("Last page"), last_url)


def no_release_flow() -> EmptyState:
    """Return the empty state of a stage without a release flow."""
    return EmptyState("nothing_exists", _text("no_release_flow"))
