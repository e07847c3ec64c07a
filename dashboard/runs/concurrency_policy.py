"""Texts on a release flow's concurrency policy and paused triggers. Pure."""

from django.utils.translation import gettext_lazy, ngettext

from dashboard.models import Stage
from dashboard.texts.rich_text import ExternalText, Message, MessageTable, RichText

# https://northflank.com/docs/v1/application/release/create-a-pipeline-and-release-flow
# The API has "latest" and "replace" but documents neither: their texts are a guess from the names
# and from how workflows behave, and are worded as such.
_text = MessageTable(
    {
        "paused": gettext_lazy("Triggers are paused: runs start only manually or by API."),
        "other_policy": gettext_lazy("Concurrency policy: %(policy)s."),
        # By policy.
        "allow": gettext_lazy("Runs of this stage may run at the same time."),
        "queue": gettext_lazy(
            "Runs of this stage run one after another: a stuck run blocks the rest."
        ),
        "forbid": gettext_lazy("While a run is in flight, requests for another are ignored."),
        "latest": gettext_lazy(
            "Concurrency policy: latest. Presumably one run at a time, and only the newest waiting "
            "run starts next; Northflank does not document it."
        ),
        "replace": gettext_lazy(
            "Concurrency policy: replace. Presumably a new run aborts and replaces the one in "
            "flight; Northflank does not document it."
        ),
        # Runs that were dropped: `count` is `n`, or “At least n”.
        "at_least": gettext_lazy("At least %(n)d"),
        "skipped_since": lambda n: ngettext(
            "%(count)s run skipped since this run was created.",
            "%(count)s runs skipped since this run was created.",
            n,
        ),
        "skipped_while": lambda n: ngettext(
            "%(count)s run skipped while this run was in flight.",
            "%(count)s runs skipped while this run was in flight.",
            n,
        ),
        "superseded_since": lambda n: ngettext(
            "%(count)s run probably superseded by a newer one since this run was created.",
            "%(count)s runs probably superseded by a newer one since this run was created.",
            n,
        ),
        "superseded_while": lambda n: ngettext(
            "%(count)s run probably superseded by a newer one while this run was in flight.",
            "%(count)s runs probably superseded by a newer one while this run was in flight.",
            n,
        ),
        "superseded": gettext_lazy("Probably superseded by a newer run."),
        "skipped": gettext_lazy("Another run was in flight when it was created."),
    }
)

POLICIES = {"allow", "queue", "forbid", "latest", "replace"}
PARALLEL = "allow"  # no run waits for another
SUPERSEDING = {"latest", "replace"}  # a newer run replaces an older one, as far as known
SKIPPING = {"forbid"} | SUPERSEDING  # runs that cannot start are dropped
NEVER_QUEUING = {"forbid", "replace"}  # a run that has not started waits for no other
QUEUING = {"queue", "latest"}  # a run waits until the one before it has ended, as far as known


def policy_text(policy: str) -> RichText:
    """Return how runs of a stage affect each other; an unrecognized policy is given by its name."""
    if policy in POLICIES:
        return _text(policy)
    return _text("other_policy", policy=ExternalText(policy)) if policy else ""


def can_queue_others(policy: str) -> bool:
    """Return whether other runs may wait for a run in flight; False if the policy is unknown."""
    return policy in QUEUING


def can_skip_others(policy: str) -> bool:
    """Return whether requests may be dropped without a run; False if the policy is unknown.

    A superseded run exists, and Northflank reports it.
    """
    return policy in SKIPPING - SUPERSEDING


def skipped_text(policy: str, count: int, *, at_least: bool, in_flight: bool) -> RichText:
    """Return how many runs were dropped while a run was in flight; empty if none is known.

    `at_least`: there may have been more. `in_flight`: the run is still in flight.
    """
    if not count:
        return ""
    # Northflank reports how superseded runs ended, not why.
    key = "superseded" if policy in SUPERSEDING else "skipped"
    key += "_since" if in_flight else "_while"
    return _text(key, n=count, count=_text("at_least", n=count) if at_least else count)


def superseded_text(policy: str) -> Message:
    """Return why a run was dropped."""
    return _text("superseded" if policy in SUPERSEDING else "skipped")


def stage_notes(stage: Stage) -> list[RichText]:
    """Return notes on a stage: policy, paused triggers; one sentence each."""
    notes = policy_text(stage.concurrency_policy), _text("paused") if stage.paused else ""
    return [note for note in notes if note]
