"""Empty states of lists: no match, no data, nothing wrong, or data missing or stale."""

from dataclasses import dataclass, replace

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dashboard.accounts.permissions import Permissions
from dashboard.sync.reports.report import Report
from dashboard.texts.rich_text import Message, MessageTable, RichText, join_texts
from dashboard.web.components import headings
from dashboard.web.components.data_age import DataAge
from dashboard.web.components.lists.filters import ALL_RUNS_URL, RunFilter
from dashboard.web.components.lists.pagination import PageOfRuns
from dashboard.web.http import lookup

_text = MessageTable(
    {
        # Runs that need attention, in flight, or failed in the last day.
        "attention": gettext_lazy("Nothing needs attention."),
        "in_flight": gettext_lazy("No runs in flight."),
        "in_flight_above": gettext_lazy("All runs in flight are listed above."),
        "in_flight_unread": gettext_lazy("Runs are being read from Northflank."),
        "no_release_flows": gettext_lazy("No stage has a release flow."),
        "failures": gettext_lazy("No runs failed in the last day."),
        "failures_above": gettext_lazy("All failed runs are listed above."),
        "failures_unread": gettext_lazy("Not known yet."),
        # Before these and other texts, which then claim no more than is known; and after them.
        "incomplete": gettext_lazy("So far:"),
        "stale": gettext_lazy("At the last update:"),
        "visible": gettext_lazy("Only what you can see is listed."),
        # Runs of a stage.
        "runs": gettext_lazy("This stage has no runs yet."),
        "runs_unread": gettext_lazy("The runs of this stage have not been read yet."),
        "no_release_flow": gettext_lazy("This stage has no release flow."),
        # Of any list: no entry matches its filter, or is older than its position.
        "filtered": gettext_lazy("No matches."),
        "past_end": gettext_lazy("Nothing older."),
        "show_all": gettext_lazy("Show all"),
        # Logs, by the names of their pages.
        "aborts": gettext_lazy("No runs have been aborted from this dashboard yet."),
        "access_log": gettext_lazy("Nobody has signed in yet."),
        "rights_changes": gettext_lazy("No rights have been changed yet."),
        # The board.
        "pipelines": gettext_lazy("The API token has access to no pipelines."),
        "pipelines_visible": gettext_lazy("No pipelines that you can see."),
        "no_stars": gettext_lazy("You have no starred pipelines: star them on the board."),
        "pipelines_unread": gettext_lazy("No pipelines have been read from Northflank yet."),
        "projects_unread": gettext_lazy("No projects have been read from Northflank yet."),
        # The search page.
        "search": gettext_lazy("No run, pipeline or project contains “%(text)s”."),
        "search_short": gettext_lazy(
            "No title, pipeline or project begins with “%(text)s”. Three letters or more are found "
            "anywhere in them."
        ),
        "search_words": gettext_lazy(
            "No run, pipeline or project contains each word of “%(text)s”."
        ),
        "search_extent": gettext_lazy(
            "Only runs that were read from Northflank and are still kept are searched."
        ),
        "past_last_page": lambda n: ngettext(
            "The list has only %(n)d page.", "The list has only %(n)d pages.", n
        ),
    }
)


@dataclass(frozen=True, slots=True)
class EmptyState:
    """The text and button in place of an empty list."""

    kind: str
    text: RichText
    action_label: Message | str = ""
    action_url: str = ""
    id: str = ""  # of its element, if the stream updates it
    coverage: Report | None = None  # the data that the text relies on


def _coverage(report: Report) -> Report | None:
    """Return the report on stages that may have runs, or None if none of them was ever read."""
    return report if report.with_flow_read and report.oldest_sync_at is not None else None


def _note(data_age: DataAge) -> Message | str:
    """Return what a text has to begin with if data is missing or stale; empty: all is known."""
    if data_age.incomplete_text or data_age.synced_at is None:
        return _text("incomplete")  # also if the rest is stale: what was never read had no update
    return _text("stale") if data_age.is_stale else ""


def _visible_note(sees_all: bool) -> Message | str:
    return "" if sees_all else _text("visible")


def attention(data_age: DataAge, report: Report) -> EmptyState:
    """Return the empty state of the runs that need attention; `report` is on the visible stages."""
    note = _note(data_age)
    return EmptyState(
        "cannot_see" if note else "all_well",
        join_texts(note, _text("attention")),
        id="empty-attention",
        # Of incomplete data the line above the list shows the coverage.
        coverage=None if data_age.incomplete_text else _coverage(report),
    )


def in_flight(
    permissions: Permissions, data_age: DataAge, report: Report, above_count: int = 0
) -> EmptyState:
    """Return the empty state of the runs in flight; `report` is on the visible stages.

    `above_count` is the number of runs in flight that the page lists above.
    """
    sees_all, is_incomplete = permissions.can_view_all, bool(data_age.incomplete_text)
    if sees_all and not report.stages and not above_count:
        is_loaded = lookup.is_catalog_loaded()
        empty = pipelines(permissions, is_catalog_loaded=is_loaded, is_incomplete=is_incomplete)
        return replace(empty, id="empty-in-flight")
    coverage, note = _coverage(report), _note(data_age)
    key, kind = "in_flight", "cannot_see" if note else "all_well"
    if above_count:
        key, kind = "in_flight_above", "above"
    elif not report.stages:
        kind = "cannot_see" if is_incomplete else "nothing_seen"
    elif coverage is None and report.with_flow:
        key, kind, note = "in_flight_unread", "cannot_see", ""
    elif coverage is None:
        key, kind = "no_release_flows", "cannot_see" if note else "nothing_exists"
    is_of_runs = key == "in_flight"
    return EmptyState(
        kind,
        join_texts(note, _text(key), _visible_note(sees_all) if is_of_runs else ""),
        id="empty-in-flight",
        coverage=coverage if is_of_runs and not is_incomplete else None,
    )


def failures(permissions: Permissions, data_age: DataAge, above_count: int = 0) -> EmptyState:
    """Return the empty state of the visible runs that failed in the last day.

    `above_count` is the number of failed runs that the page lists above.
    """
    note = _note(data_age)
    if above_count:
        kind, text = "above", join_texts(note, _text("failures_above"))
    elif data_age.synced_at is None:
        kind, text = "cannot_see", (_text("failures_unread"),)
    else:
        kind = "cannot_see" if note else "all_well"
        text = join_texts(note, _text("failures"), _visible_note(permissions.can_view_all))
    return EmptyState(kind, text, id="empty-failed")


def runs(data_age: DataAge, run_filter: RunFilter, page: PageOfRuns) -> EmptyState:
    """Return the empty state of a page of a stage's runs."""
    kind = "nothing_matches"
    if run_filter.cursor:
        return EmptyState(kind, _text("past_end"), _("Newest"), page.newest_url)
    if data_age.synced_at is None:
        return EmptyState("cannot_see", _text("runs_unread"))
    if run_filter.parameters:
        return EmptyState(kind, _text("filtered"), _text("show_all"), ALL_RUNS_URL)
    return EmptyState("nothing_exists", _text("runs"))


def log(
    name: str, *, is_past_end: bool, is_filtered: bool = False, sees_all: bool = True
) -> EmptyState:
    """Return the empty state of the page `name`: aborts, access log, rights changes.

    `sees_all` is whether the user may view all runs.
    """
    kind, url = "nothing_matches", reverse(name)
    if is_filtered:
        return EmptyState(kind, _text("filtered"), _text("show_all"), url)
    if is_past_end:
        return EmptyState(kind, _text("past_end"), _("Newest"), url)
    return EmptyState("nothing_exists", join_texts(_text(name), _visible_note(sees_all)))


def pipelines(
    permissions: Permissions,
    *,
    is_catalog_loaded: bool,
    is_incomplete: bool,
    is_filtered: bool = False,
) -> EmptyState:
    """Return the empty state of the board."""
    note = _text("incomplete") if is_incomplete else ""
    if is_filtered:
        text = join_texts(note, _text("filtered"))
        return EmptyState("nothing_matches", text, _text("show_all"), reverse("board"))
    if not is_catalog_loaded:
        return EmptyState("cannot_see", _text("projects_unread"))
    if is_incomplete and permissions.can_view_all:
        return EmptyState("cannot_see", _text("pipelines_unread"))
    key = "pipelines" if permissions.can_view_all else "pipelines_visible"
    kind = "cannot_see" if is_incomplete else "nothing_exists"
    return EmptyState(kind, join_texts(note, _text(key)))


def no_stars(all_url: str) -> EmptyState:
    """Return the empty state of “My pipelines” for a user who has none."""
    return EmptyState("nothing_exists", _text("no_stars"), _("Show all"), all_url)


def search(data_age: DataAge, text: str, *, is_short: bool) -> EmptyState:
    """Return the empty state of the search page for a text that finds nothing.

    `is_short`: only beginnings of names were compared with it.
    """
    key = "search_short" if is_short else "search_words" if " " in text else "search"
    note = _text("incomplete") if data_age.incomplete_text else ""
    found = _text(key, text=headings.cut(text))
    kind = "cannot_see" if note else "nothing_matches"
    return EmptyState(kind, join_texts(note, found, _text("search_extent")))


def past_last_page(page_count: int, last_url: str) -> EmptyState:
    """Return the empty state of a page of the board that does not exist."""
    text = _text("past_last_page", n=page_count)
    return EmptyState("nothing_matches", text, _("Last page"), last_url)


def no_release_flow() -> EmptyState:
    """Return the empty state of a stage without a release flow."""
    return EmptyState("nothing_exists", _text("no_release_flow"))
