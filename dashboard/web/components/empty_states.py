"""Why a list is empty: nothing matches, nothing exists, all is well, or we cannot see."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

from django.urls import reverse
from django.utils.translation import gettext as _

from dashboard.accounts.permissions import Rights
from dashboard.models import Stage
from dashboard.web.components.filters import ALL_RUNS, RunFilter
from dashboard.web.components.pagination import Page
from dashboard.web.http import lookup
from dashboard.web.live.region import AsOf


@dataclass(frozen=True, slots=True)
class Empty:
    """What stands where there are no rows."""

    kind: str
    text: str
    action_label: str = ""
    action_url: str = ""
    id: str = ""  # of its element, where the stream speaks of it
    seen: "Seen | None" = None  # what it goes by


@dataclass(frozen=True, slots=True)
class Seen:
    """How many stages were looked at, of how many, and when the one looked at longest ago was."""

    stages: int
    of: int
    at: datetime


def seen(stages: Collection[Stage]) -> Seen | None:
    """Return what is known of `stages` that may have runs; None where none was looked at."""
    relevant = [stage for stage in stages if stage.has_flow is not False]
    read = [stage.synced_at for stage in relevant if stage.synced_at is not None]
    return Seen(len(read), len(relevant), min(read)) if read else None


def attention(as_of: AsOf, stages: Collection[Stage]) -> Empty:
    """Nothing needs attention of what is in flight in `stages`."""
    kind, text = "all_well", _("Nothing needs attention.")
    if as_of.incomplete:  # and how much of it the line above the list has said
        text = _("Nothing that needs attention was found so far.")
        return Empty("cannot_see", text, id="nothing-urgent")
    if as_of.stale:
        kind, text = "cannot_see", _("Nothing needed attention when Northflank was last read.")
    return Empty(kind, text, id="nothing-urgent", seen=seen(stages))


def in_flight(rights: Rights, as_of: AsOf, stages: Collection[Stage], above: int = 0) -> Empty:
    """Nothing is in flight in `stages`, as far as we can see and the person may.

    Or nothing but what the page shows `above`.
    """
    id, known = "nothing-in-flight", seen(stages)
    if above:
        text = _("All that is in flight needs attention: see above.")
        if as_of.incomplete:
            text = _("All that was found in flight so far needs attention: see above.")
        return Empty("above", text, id=id)
    if not stages and not rights.sees_all:
        return Empty("nothing_seen", _("Nothing that you may see is in flight."), id=id)
    if not stages and lookup.are_listed():
        return replace(pipelines(rights, swept=True, incomplete=bool(as_of.incomplete)), id=id)
    if not stages:
        return Empty("cannot_see", _("No pipeline has been read from Northflank yet."), id=id)
    if known is None and all(stage.has_flow is False for stage in stages):
        return Empty("nothing_exists", _("No stage has a release flow."), id=id)
    if known is None:
        return Empty("cannot_see", _("The runs are being read from Northflank."), id=id)
    if as_of.stale:
        text = _("Nothing was in flight when Northflank was last read; it may be now.")
        return Empty("cannot_see", text, id=id, seen=known)
    if as_of.incomplete:
        text = _("Nothing in flight was found so far.")
        return Empty("cannot_see", text, id=id)
    text = _("Nothing is in flight.")
    if not rights.sees_all:
        text = _("Nothing that you may see is in flight.")
    return Empty("all_well", text, id=id, seen=known)


def failures(rights: Rights, as_of: AsOf, above: int = 0) -> Empty:
    """Nothing failed in the last day, as far as we can see and the person may.

    Or nothing but what the page shows `above`.
    """
    if above:
        return Empty("above", _("All that failed has just failed: see above."), id="nothing-failed")
    kind, text = "all_well", _("No run failed in the last day.")
    if not rights.sees_all:
        text = _("No run that you may see failed in the last day.")
    if as_of.at is None:
        kind, text = "cannot_see", _("Not known yet.")
    elif as_of.incomplete:
        kind, text = "cannot_see", _("None that failed was found so far.")
    elif as_of.stale:
        kind, text = "cannot_see", _("None had failed when Northflank was last read.")
    return Empty(kind, text, id="nothing-failed")


def runs(as_of: AsOf, asked: RunFilter, page: Page) -> Empty:
    """A page of a stage's runs is empty."""
    kind = "nothing_matches"
    if page.looked_at:
        onward = page.newer_url or page.older_url
        text = _("None of the %(count)s runs looked at here matches.")
        return Empty(kind, text % {"count": f"{page.looked_at:,}"}, _("Look further"), onward)
    if asked.start:
        return Empty(kind, _("There are none beyond."), _("The newest"), page.newest_url)
    if asked.wanted:
        return Empty(kind, _("No run matches."), _("Show all runs"), ALL_RUNS)
    if as_of.at is None:
        return Empty("cannot_see", _("The runs of this stage have not been read yet."))
    return Empty("nothing_exists", _("This stage has no runs yet."))


def aborts(*, filtered: bool, past_the_end: bool, sees_all: bool) -> Empty:
    """The audit's list is empty."""
    everything = reverse("aborts")
    if filtered:
        return Empty("nothing_matches", _("No abort matches."), _("Show all aborts"), everything)
    if past_the_end:
        return Empty("nothing_matches", _("There are none before."), _("The newest"), everything)
    if not sees_all:
        text = _("No run that you may see has been aborted from here yet.")
        return Empty("nothing_exists", text)
    return Empty("nothing_exists", _("No run has been aborted from here yet."))


def lists(*, past_the_end: bool, sees_all: bool) -> Empty:
    """There is no list of runs that were aborted by one press."""
    if past_the_end:
        newest = reverse("abort_lists")
        return Empty("nothing_matches", _("There are none before."), _("The newest"), newest)
    if not sees_all:
        text = _("No runs that you may see have been aborted together from here yet.")
        return Empty("nothing_exists", text)
    return Empty("nothing_exists", _("No runs have been aborted together from here yet."))


def pipelines(rights: Rights, *, swept: bool, incomplete: bool, filtered: bool = False) -> Empty:
    """The board is empty."""
    if filtered:
        everything = reverse("board")
        text = _("No pipeline matches so far.") if incomplete else _("No pipeline matches.")
        return Empty("nothing_matches", text, _("Show all pipelines"), everything)
    if not swept:
        return Empty("cannot_see", _("No project has been read from Northflank yet."))
    if not rights.sees_all:
        return Empty("nothing_exists", _("There is no pipeline that you may see."))
    if incomplete:
        return Empty("cannot_see", _("No pipeline has been read from Northflank yet."))
    return Empty("nothing_exists", _("This token sees no pipeline."))


def no_flow() -> Empty:
    """The stage has nothing that could run."""
    return Empty("nothing_exists", _("This stage has no release flow."))
