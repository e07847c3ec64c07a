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
        # A policy, on the page of a stage.
        "stage_allow": gettext_lazy("Runs of this stage may run at the same time."),
        "stage_queue": gettext_lazy(
            "Runs of this stage run one after another: a stuck run blocks the rest."
        ),
        "stage_forbid": gettext_lazy("While a run is in flight, requests for another are ignored."),
        "stage_latest": gettext_lazy(
            "Concurrency policy: latest. Presumably one run at a time, and only the newest waiting "
            "run starts next; Northflank does not document it."
        ),
        "stage_replace": gettext_lazy(
            "Concurrency policy: replace. Presumably a new run aborts and replaces the one in "
            "flight; Northflank does not document it."
        ),
        # A policy, on the page of a run.
        "run_allow": gettext_lazy(
            "No run waits for this one: runs of this stage may run at the same time."
        ),
        "run_queue": gettext_lazy("Runs of this stage run one after another."),
        "run_forbid": gettext_lazy(
            "Requests for another run are ignored while this one is in flight."
        ),
        "run_latest": gettext_lazy(
            "Concurrency policy: latest. Presumably a waiting run is dropped when a newer one is "
            "created; Northflank does not document it."
        ),
        "run_replace": gettext_lazy(
            "Concurrency policy: replace. Presumably a newer run aborts and replaces this one; "
            "Northflank does not document it."
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

PARALLEL = "allow"  # no run waits for another
SUPERSEDING = {"latest", "replace"}  # a newer run replaces an older one, as far as known
SKIPPING = {"forbid"} | SUPERSEDING  # runs that cannot start are dropped
NEVER_QUEUING = {"forbid", "replace"}  # a run that has not started waits for no other
QUEUING = {"queue", "latest"}  # a run waits until the one before it has ended, as far as known


def effect_on_others(policy: str) -> RichText:
    """Return how a run in flight affects others of its stage; empty if the policy is unknown."""
    return _policy_text("run", policy)


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
    notes = (
        _policy_text("stage", stage.concurrency_policy),
        _text("paused") if stage.paused else "",
    )
    return [note for note in notes if note]


def _policy_text(subject: str, policy: str) -> RichText:
    """Return the text of a policy; an unrecognized policy is given by its name."""
    key = f"{subject}_{policy}"
    if key in _text:
        return _text(key)
    return _text("other_policy", policy=ExternalText(policy)) if policy else ""
