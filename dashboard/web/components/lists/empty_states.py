"""Empty states of lists: no match, no data, nothing wrong, or data missing or stale."""

from dataclasses import dataclass, replace
from datetime import datetime

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard.accounts.permissions import Permissions
from dashboard.sync.reports.read_totals import ReadTotals
from dashboard.web.components.data_age import DataAge
from dashboard.web.components.lists.filters import ALL_RUNS_URL, RunFilter
from dashboard.web.components.lists.pagination import PageOfRuns
from dashboard.web.http import lookup


@dataclass(frozen=True, slots=True)
class EmptyState:
    """The text and button in place of an empty list."""

    kind: str
    text: str
    action_label: str = ""
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


def attention(data_age: DataAge, totals: ReadTotals) -> EmptyState:
    """Return the empty state of the runs that need attention; `totals` are of visible stages."""
    kind, text = "all_well", _("Nothing needs attention.")
    if data_age.incomplete_text:  # the line above the list shows the coverage
        text = _("Nothing found so far needs attention.")
        return EmptyState("cannot_see", text, id="empty-attention")
    if data_age.is_stale:
        kind, text = "cannot_see", _("Nothing needed attention at the last update.")
    return EmptyState(kind, text, id="empty-attention", coverage=stage_coverage(totals))


def in_flight(
    permissions: Permissions, data_age: DataAge, totals: ReadTotals, above_count: int = 0
) -> EmptyState:
    """Return the empty state of the runs in flight; `totals` are of the visible stages.

    `above_count` is the number of runs in flight that the page lists above.
    """
    element_id, coverage = "empty-in-flight", stage_coverage(totals)
    if above_count:
        text = _("All runs in flight are listed above.")
        if data_age.incomplete_text:
            text = _("All runs in flight found so far are listed above.")
        return EmptyState("above", text, id=element_id)
    if not totals.stages and not permissions.can_view_all:
        return EmptyState("nothing_seen", _("No runs in flight that you can see."), id=element_id)
    if not totals.stages and lookup.is_catalog_loaded():
        return replace(
            pipelines(
                permissions, is_catalog_loaded=True, is_incomplete=bool(data_age.incomplete_text)
            ),
            id=element_id,
        )
    if not totals.stages:
        return EmptyState(
            "cannot_see", _("No pipelines have been read from Northflank yet."), id=element_id
        )
    if coverage is None and not totals.with_flow:
        return EmptyState("nothing_exists", _("No stage has a release flow."), id=element_id)
    if coverage is None:
        return EmptyState("cannot_see", _("Runs are being read from Northflank."), id=element_id)
    if data_age.is_stale:
        text = _("No runs were in flight at the last update; there may be some now.")
        return EmptyState("cannot_see", text, id=element_id, coverage=coverage)
    if data_age.incomplete_text:
        text = _("No runs in flight found so far.")
        return EmptyState("cannot_see", text, id=element_id)
    text = _("No runs in flight.")
    if not permissions.can_view_all:
        text = _("No runs in flight that you can see.")
    return EmptyState("all_well", text, id=element_id, coverage=coverage)


def failures(permissions: Permissions, data_age: DataAge, above_count: int = 0) -> EmptyState:
    """Return the empty state of the visible runs that failed in the last day.

    `above_count` is the number of failed runs that the page lists above.
    """
    if above_count:
        return EmptyState("above", _("All failed runs are listed above."), id="empty-failed")
    kind, text = "all_well", _("No runs failed in the last day.")
    if not permissions.can_view_all:
        text = _("No runs that you can see failed in the last day.")
    if data_age.synced_at is None:
        kind, text = "cannot_see", _("Not known yet.")
    elif data_age.incomplete_text:
        kind, text = "cannot_see", _("No failed runs found so far.")
    elif data_age.is_stale:
        kind, text = "cannot_see", _("No failed runs at the last update.")
    return EmptyState(kind, text, id="empty-failed")


def runs(data_age: DataAge, run_filter: RunFilter, page: PageOfRuns) -> EmptyState:
    """Return the empty state of a page of a stage's runs."""
    kind = "nothing_matches"
    if page.scanned:
        next_url = page.newer_url or page.older_url
        text = _("No match in the %(count)s runs searched.")
        return EmptyState(
            kind, text % {"count": f"{page.scanned:,}"}, _("Search further"), next_url
        )
    if run_filter.cursor:
        return EmptyState(kind, _("No more runs."), _("Newest"), page.newest_url)
    if run_filter.parameters:
        return EmptyState(kind, _("No matching runs."), _("Show all runs"), ALL_RUNS_URL)
    if data_age.synced_at is None:
        return EmptyState("cannot_see", _("The runs of this stage have not been read yet."))
    return EmptyState("nothing_exists", _("This stage has no runs yet."))


def aborts(*, is_filtered: bool, is_past_end: bool, sees_all: bool) -> EmptyState:
    """Return the empty state of the abort log."""
    all_url = reverse("aborts")
    if is_filtered:
        return EmptyState(
            "nothing_matches", _("No matching aborts."), _("Show all aborts"), all_url
        )
    if is_past_end:
        return EmptyState("nothing_matches", _("No older aborts."), _("Newest"), all_url)
    if not sees_all:
        text = _("No runs that you can see have been aborted from this dashboard yet.")
        return EmptyState("nothing_exists", text)
    return EmptyState("nothing_exists", _("No runs have been aborted from this dashboard yet."))


def access_log(*, is_filtered: bool, is_past_end: bool) -> EmptyState:
    """Return the empty state of the access log."""
    all_url = reverse("access_log")
    if is_filtered:
        return EmptyState(
            "nothing_matches", _("No matching events."), _("Show all events"), all_url
        )
    if is_past_end:
        return EmptyState("nothing_matches", _("No older events."), _("Newest"), all_url)
    return EmptyState("nothing_exists", _("Nobody has signed in yet."))


def bulk_aborts(*, is_past_end: bool, sees_all: bool) -> EmptyState:
    """Return the empty state of the list of bulk aborts."""
    if is_past_end:
        newest_url = reverse("bulk_aborts")
        return EmptyState("nothing_matches", _("No older bulk aborts."), _("Newest"), newest_url)
    if not sees_all:
        text = _("No bulk aborts of runs that you can see yet.")
        return EmptyState("nothing_exists", text)
    return EmptyState("nothing_exists", _("No bulk aborts yet."))


def rights_changes(*, is_filtered: bool, is_past_end: bool) -> EmptyState:
    """Return the empty state of the changes of rights."""
    all_url = reverse("rights_changes")
    if is_filtered:
        return EmptyState(
            "nothing_matches", _("No matching changes."), _("Show all changes"), all_url
        )
    if is_past_end:
        return EmptyState("nothing_matches", _("No older changes."), _("Newest"), all_url)
    return EmptyState("nothing_exists", _("No rights have been changed yet."))


def pipelines(
    permissions: Permissions,
    *,
    is_catalog_loaded: bool,
    is_incomplete: bool,
    is_filtered: bool = False,
) -> EmptyState:
    """Return the empty state of the board."""
    if is_filtered:
        all_url = reverse("board")
        text = _("No matching pipelines so far.") if is_incomplete else _("No matching pipelines.")
        return EmptyState("nothing_matches", text, _("Show all pipelines"), all_url)
    if not is_catalog_loaded:
        return EmptyState("cannot_see", _("No projects have been read from Northflank yet."))
    if not permissions.can_view_all:
        return EmptyState("nothing_exists", _("No pipelines that you can see."))
    if is_incomplete:
        return EmptyState("cannot_see", _("No pipelines have been read from Northflank yet."))
    return EmptyState("nothing_exists", _("The API token has access to no pipelines."))


def past_last_page(page_count: int, last_url: str) -> EmptyState:
    """Return the empty state of a page of the board that does not exist."""
    text = ngettext("The list has only %(n)d page.", "The list has only %(n)d pages.", page_count)
    return EmptyState("nothing_matches", text % {"n": page_count}, _("Last page"), last_url)


def no_release_flow() -> EmptyState:
    """Return the empty state of a stage without a release flow."""
    return EmptyState("nothing_exists", _("This stage has no release flow."))
