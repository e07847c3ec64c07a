"""Why a list is empty: nothing matches, nothing exists, all is well, or we cannot see."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.translation import gettext as _

from dashboard.models import Stage
from dashboard.web.live import AsOf


@dataclass(frozen=True, slots=True)
class Empty:
    """What stands where there are no rows."""

    kind: str
    text: str
    action_label: str = ""
    action_url: str = ""
    id: str = ""  # of its element, where the stream speaks of it


def in_flight(as_of: AsOf, stages: Iterable[Stage]) -> Empty:
    """Nothing is in flight in `stages`, as far as we can see."""
    kind, text = "cannot_see", _("Nothing is in flight.")
    if as_of.at is None and any(stage.has_flow is not False for stage in stages):
        text = _("The runs are being read from Northflank.")
    elif as_of.at is None:
        text = _("No pipeline has been read from Northflank yet.")
    elif as_of.stale:
        text = _("Nothing was in flight when Northflank was last read; it may be now.")
    else:
        kind = "all_well"
    return Empty(kind, text, id="nothing-in-flight")


def failures(as_of: AsOf) -> Empty:
    """Nothing failed in the last day, as far as we can see."""
    kind, text = "all_well", _("No run failed in the last day.")
    if as_of.at is None:
        kind, text = "cannot_see", _("Not known yet.")
    elif as_of.stale:
        kind, text = "cannot_see", _("None had failed when Northflank was last read.")
    return Empty(kind, text, id="nothing-failed")


def runs(as_of: AsOf, *, filtered: bool, all_url: str) -> Empty:
    """A stage's list of runs is empty."""
    if filtered:
        return Empty("nothing_matches", _("No run matches."), _("Show all runs"), all_url)
    if as_of.at is None:
        return Empty("cannot_see", _("The runs of this stage have not been read yet."))
    return Empty("nothing_exists", _("This stage has no runs yet."))


def pipelines(*, swept: bool) -> Empty:
    """The board is empty."""
    if not swept:
        return Empty("cannot_see", _("No project has been read from Northflank yet."))
    return Empty("nothing_exists", _("This token sees no pipeline."))


def no_flow() -> Empty:
    """The stage has nothing that could run."""
    return Empty("nothing_exists", _("This stage has no release flow."))
