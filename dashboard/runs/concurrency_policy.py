"""Texts on a release flow's concurrency policy and paused triggers. Pure."""

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dashboard.models import Stage

# https://northflank.com/docs/v1/application/release/create-a-pipeline-and-release-flow
# The API has "latest" and "replace" but documents neither: their texts are a guess from the names
# and from how workflows behave, and are worded as such.
_STAGE_TEXTS: dict[str, Promise] = {
    "allow": gettext_lazy("Runs of this stage may run at the same time."),
    "queue": gettext_lazy("Runs of this stage run one after another: a stuck run blocks the rest."),
    "forbid": gettext_lazy("While a run is in flight, requests for another are ignored."),
    "latest": gettext_lazy(
        "Concurrency policy: latest. Presumably one run at a time, and only the newest waiting run "
        "starts next; Northflank does not document it."
    ),
    "replace": gettext_lazy(
        "Concurrency policy: replace. Presumably a new run aborts and replaces the one in flight; "
        "Northflank does not document it."
    ),
}

_RUN_TEXTS: dict[str, Promise] = {
    "allow": gettext_lazy(
        "No run waits for this one: runs of this stage may run at the same time."
    ),
    "queue": gettext_lazy("Runs of this stage run one after another."),
    "forbid": gettext_lazy("Requests for another run are ignored while this one is in flight."),
    "latest": gettext_lazy(
        "Concurrency policy: latest. Presumably a waiting run is dropped when a newer one is "
        "created; Northflank does not document it."
    ),
    "replace": gettext_lazy(
        "Concurrency policy: replace. Presumably a newer run aborts and replaces this one; "
        "Northflank does not document it."
    ),
}

PARALLEL = "allow"  # no run waits for another
SUPERSEDING = {"latest", "replace"}  # a newer run replaces an older one, as far as known
SKIPPING = {"forbid"} | SUPERSEDING  # runs that cannot start are dropped
NEVER_QUEUING = {"forbid", "replace"}  # a run that has not started waits for no other


def effect_on_others(policy: str) -> str:
    """Return how a run in flight affects others of its stage; empty if the policy is unknown."""
    return _policy_text(_RUN_TEXTS, policy)


def skipped_text(policy: str, count: int, *, at_least: bool, in_flight: bool) -> str:
    """Return how many runs were dropped while a run was in flight; empty if none is known.

    `at_least`: there may have been more. `in_flight`: the run is still in flight.
    """
    if not count:
        return ""
    if policy in SUPERSEDING:  # Northflank reports how they ended, not why
        template = _superseded_count_text(count, in_flight=in_flight)
    elif in_flight:
        template = ngettext(
            "%(n)s run skipped since this run was created.",
            "%(n)s runs skipped since this run was created.",
            count,
        )
    else:
        template = ngettext(
            "%(n)s run skipped while this run was in flight.",
            "%(n)s runs skipped while this run was in flight.",
            count,
        )
    # Translators: replaces the number in “3 runs skipped while this run was in flight.”
    return template % {"n": _("At least %(n)d") % {"n": count} if at_least else count}


def _superseded_count_text(count: int, *, in_flight: bool) -> str:
    if in_flight:
        return ngettext(
            "%(n)s run probably superseded by a newer one since this run was created.",
            "%(n)s runs probably superseded by a newer one since this run was created.",
            count,
        )
    return ngettext(
        "%(n)s run probably superseded by a newer one while this run was in flight.",
        "%(n)s runs probably superseded by a newer one while this run was in flight.",
        count,
    )


def superseded_text(policy: str) -> str:
    """Return why a run was dropped."""
    if policy in SUPERSEDING:
        return _("Probably superseded by a newer run.")
    return _("Another run was in flight when it was created.")


def stage_facts(stage: Stage) -> list[str]:
    """Return notes on a stage: removed pipeline, policy, paused triggers; one sentence each."""
    policy = stage.concurrency_policy
    sentences = []
    if stage.pipeline.removed_at or stage.pipeline.project.removed_at:
        sentences.append(_("Northflank no longer lists this pipeline. Showing last known data."))
    if policy:
        sentences.append(_policy_text(_STAGE_TEXTS, policy))
    if stage.paused:
        sentences.append(_("Triggers are paused: runs start only manually or by API."))
    return sentences


def _policy_text(texts: dict[str, Promise], policy: str) -> str:
    """Return the text of a policy; an unrecognized policy is given by its name."""
    if not policy:
        return ""
    text = texts.get(policy)
    return str(text) if text else _("Concurrency policy: %(policy)s.") % {"policy": policy}
