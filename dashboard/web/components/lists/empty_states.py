"""Empty states of lists: no match, no data, nothing wrong, or data missing or stale."""

from dataclasses import dataclass

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.accounts.permissions import Permissions
from dashboard.texts.rich_text import Message, MessageTable, RichText, join_texts
from dashboard.web.components import headings
from dashboard.web.components.data_age import DataAge
from dashboard.web.components.lists.filters import ALL_RUNS_URL, RunFilter
from dashboard.web.components.lists.pagination import PageOfRuns
from dashboard.web.components.lists.record_pages import RecordFilter

_text = MessageTable(
    {
        # The sections of Now, by their names.
        "attention": gettext_lazy("Nothing needs attention."),
        "in-flight": gettext_lazy("No runs in flight."),
        "failed": gettext_lazy("No runs failed in the last day."),
        "above": gettext_lazy("All of them are listed above."),
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
        # The search page.
        "search": gettext_lazy("No run, pipeline or project contains “%(text)s”."),
        "search_short": gettext_lazy(
            "No title, pipeline or project begins with “%(text)s”. Three letters or more are found "
            "anywhere in them."
        ),
        "search_extent": gettext_lazy(
            "Only runs that were read from Northflank and are still kept are searched."
        ),
    }
)


@dataclass(frozen=True, slots=True)
class EmptyState:
    """The text and button in place of an empty list."""

    text: RichText
    is_uncertain: bool = False  # data is missing or stale, so there may be something
    action_label: Message | str = ""
    action_url: str = ""
    id: str = ""  # of its element, if the stream updates it


def _note(data_age: DataAge) -> Message | str:
    """Return what a text has to begin with if data is missing or stale; empty: all is known."""
    if data_age.incomplete_text or data_age.synced_at is None:
        return _text("incomplete")  # also if the rest is stale: what was never read had no update
    return _text("stale") if data_age.is_stale else ""


def _visible_note(sees_all: bool) -> Message | str:
    return "" if sees_all else _text("visible")


def section(
    name: str,
    permissions: Permissions,
    data_age: DataAge,
    *,
    above_count: int = 0,
) -> EmptyState:
    """Return the empty state of a section of Now: attention, in-flight or failed.

    `above_count` is the number of its runs that the page lists above.
    """
    note, element_id = _note(data_age), f"empty-{name}"
    if above_count:
        return EmptyState(join_texts(note, _text("above")), id=element_id)
    visible_note = _visible_note(permissions.can_view_all)
    return EmptyState(join_texts(note, _text(name), visible_note), bool(note), id=element_id)


def runs(data_age: DataAge, run_filter: RunFilter, page: PageOfRuns) -> EmptyState:
    """Return the empty state of a page of a stage's runs."""
    if run_filter.cursor:
        return EmptyState(_text("past_end"), action_label=_("Newest"), action_url=page.newest_url)
    if data_age.synced_at is None:
        return EmptyState(_text("runs_unread"), is_uncertain=True)
    if run_filter.parameters:
        return _filtered(ALL_RUNS_URL)
    return EmptyState(_text("runs"))


def log(name: str, record_filter: RecordFilter, *, sees_all: bool = True) -> EmptyState:
    """Return the empty state of the page `name`: aborts, access log, rights changes.

    `sees_all` is whether the user may view all runs.
    """
    if record_filter.parameters:
        return _filtered(reverse(name))
    if record_filter.before_pk is not None:
        return EmptyState(_text("past_end"), action_label=_("Newest"), action_url=reverse(name))
    return EmptyState(join_texts(_text(name), _visible_note(sees_all)))


def pipelines(
    permissions: Permissions, *, is_incomplete: bool, is_filtered: bool = False
) -> EmptyState:
    """Return the empty state of the board."""
    note = _text("incomplete") if is_incomplete else ""
    if is_filtered:
        return _filtered(reverse("board"), note)
    if is_incomplete and permissions.can_view_all:
        return EmptyState(_text("pipelines_unread"), is_uncertain=True)
    key = "pipelines" if permissions.can_view_all else "pipelines_visible"
    return EmptyState(join_texts(note, _text(key)), is_incomplete)


def _filtered(all_url: str, note: Message | str = "") -> EmptyState:
    text = join_texts(note, _text("filtered"))
    return EmptyState(text, action_label=_text("show_all"), action_url=all_url)


def no_stars(all_url: str) -> EmptyState:
    """Return the empty state of “My pipelines” for a user who has none."""
    return EmptyState(_text("no_stars"), action_label=_text("show_all"), action_url=all_url)


def search(data_age: DataAge, text: str, *, is_short: bool) -> EmptyState:
    """Return the empty state of the search page for a text that finds nothing.

    `is_short`: only beginnings of names were compared with it.
    """
    note = _text("incomplete") if data_age.incomplete_text else ""
    found = _text("search_short" if is_short else "search", text=headings.cut(text))
    return EmptyState(join_texts(note, found, _text("search_extent")), bool(note))


def no_release_flow() -> EmptyState:
    """Return the empty state of a stage without a release flow."""
    return EmptyState(_text("no_release_flow"))
