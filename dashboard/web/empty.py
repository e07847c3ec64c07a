"""Why a list is empty: nothing matches, nothing exists, all is well, or we cannot see."""

from dataclasses import dataclass

from django.utils.translation import gettext as _

from dashboard.web.live import AsOf


@dataclass(frozen=True, slots=True)
class Empty:
    """What stands where there are no rows."""

    kind: str
    text: str
    action_label: str = ""
    action_url: str = ""


def in_flight(as_of: AsOf, *, any_stage: bool) -> Empty:
    """Nothing is in flight, as far as we can see."""
    if as_of.at is None:
        if any_stage:
            return Empty("cannot_see", _("The runs are being read from Northflank."))
        return Empty("cannot_see", _("No pipeline has been read from Northflank yet."))
    if as_of.stale:
        return Empty(
            "cannot_see", _("Nothing was in flight when Northflank was last read; it may be now.")
        )
    return Empty("all_well", _("Nothing is in flight."))


def failures(as_of: AsOf) -> Empty:
    """Nothing failed in the last day, as far as we can see."""
    if as_of.at is None:
        return Empty("cannot_see", _("Not known yet."))
    if as_of.stale:
        return Empty("cannot_see", _("None had failed when Northflank was last read."))
    return Empty("all_well", _("No run failed in the last day."))


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
