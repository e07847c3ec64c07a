"""Texts on a release flow's concurrency policy and paused triggers. Pure."""

from django.utils.translation import gettext_lazy, ngettext

from dashboard.models import Stage
from dashboard.texts.rich_text import ExternalText, MessageTable, RichText

# https://northflank.com/docs/v1/application/release/create-a-pipeline-and-release-flow
# The API has "latest" and "replace" but documents neither: their texts are a guess from the names
# and from how workflows behave, and are worded as such.
_text = MessageTable(
    {
        "paused": gettext_lazy("Triggers are paused: runs start only manually or by API."),
        "other_policy": gettext_lazy("Policy: %(policy)s."),
        # By policy.
        "allow": gettext_lazy("This stage runs several at once: no run blocks another."),
        "queue": gettext_lazy(
            "Runs of this stage run one after another: a stuck run blocks the rest."
        ),
        "forbid": gettext_lazy(
            "While a run is in flight, Northflank ignores new starts in this stage."
        ),
        "latest": gettext_lazy(
            "Policy “latest”: probably only the newest waiting run starts next (undocumented)."
        ),
        "replace": gettext_lazy(
            "Policy “replace”: probably a new run aborts and replaces the one in flight "
            "(undocumented)."
        ),
        "skipped_since": lambda n: ngettext(
            "%(n)s run skipped since this run was created.",
            "%(n)s runs skipped since this run was created.",
            n,
        ),
        "skipped_while": lambda n: ngettext(
            "%(n)s run skipped while this run was in flight.",
            "%(n)s runs skipped while this run was in flight.",
            n,
        ),
    }
)

POLICIES = {"allow", "queue", "forbid", "latest", "replace"}
FORBID = "forbid"  # runs that cannot start are dropped
NEVER_QUEUING = {"allow", FORBID, "replace"}  # no run waits for another
QUEUING = {"queue", "latest"}  # a run waits until the one before it has ended, as far as known


def policy_text(policy: str) -> RichText:
    """Return how runs of a stage affect each other; an unrecognized policy is given by its name."""
    if policy in POLICIES:
        return _text(policy)
    return _text("other_policy", policy=ExternalText(policy)) if policy else ""


def may_queue(policy: str) -> bool:
    """Return whether a run may wait for another of its stage; True if the policy is unknown."""
    return policy not in NEVER_QUEUING


def can_queue_others(policy: str) -> bool:
    """Return whether other runs may wait for a run in flight; False if the policy is unknown."""
    return policy in QUEUING


def skipped_text(count: int, *, in_flight: bool) -> RichText:
    """Return how many runs were dropped while a run was in flight; empty if none is known.

    `in_flight`: the run is still in flight.
    """
    return _text("skipped_since" if in_flight else "skipped_while", n=count) if count else ""


def stage_notes(stage: Stage) -> list[RichText]:
    """Return notes on a stage: policy, paused triggers; one sentence each."""
    notes = policy_text(stage.concurrency_policy), _text("paused") if stage.paused else ""
    return [note for note in notes if note]
