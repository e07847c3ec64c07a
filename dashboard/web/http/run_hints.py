"""Where a run of unknown location may be, by the hints in the address of an alert's link.

Hints are the query parameters `project`, `pipeline` and `stage`: an id or a name, in any case.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from django.db.models import Case, Q, Value, When
from django.db.models.expressions import Combinable

from dashboard.accounts.permissions import Permissions
from dashboard.models import Run, Stage
from dashboard.sync import requests

HINT_FIELDS = {
    "project": ("pipeline__project__slug", "pipeline__project__name"),
    "pipeline": ("pipeline__slug", "pipeline__name"),
    "stage": ("name",),
}


@dataclass(frozen=True, slots=True)
class Candidates:
    """The stages that may contain a run of unknown location, as keys."""

    stage_keys: list[int]
    total: int  # number of stages without any hint
    matched_hints: int  # how many hints each of them matches

    @property
    def is_narrowed(self) -> bool:
        return len(self.stage_keys) < self.total


def candidate_stages(permissions: Permissions, hints: Mapping[str, str]) -> Candidates:
    """Return the stages that may contain a run of unknown location.

    `hints` are the query parameters `project`, `pipeline` and `stage`: an id or a name, in any
    case. The result is the stages that match the most hints, since some hints may be wrong; all
    stages if none matches any.
    """
    visible = Stage.objects.listed().exclude(has_flow=False).filter(permissions.stage_filter())
    matched = visible.annotate(matched_hints=_matched_hints(hints))
    stages = list(matched.order_by("pk").values_list("pk", "matched_hints"))
    best_count = max((count for _pk, count in stages), default=0)
    stage_keys = [pk for pk, count in stages if count == best_count]
    return Candidates(stage_keys, len(stages), best_count)


def find_run(
    permissions: Permissions, hints: Mapping[str, str], run_id: str, min_matched: int
) -> Run | None:
    """Return the mirrored run whose stage matches the most hints, and the newest of several.

    None if each matches fewer than `min_matched`. `hints` are as for `candidate_stages`.
    """
    runs = Run.objects.with_stage().filter(permissions.stage_filter("stage"), run_id=run_id)
    matching = runs.annotate(matched_hints=_matched_hints(hints, "stage__"))
    return (
        matching.filter(matched_hints__gte=min_matched)
        .order_by("-matched_hints", "-created_at")
        .first()
    )


def matches_hints(stage: Stage, hints: Mapping[str, str]) -> bool:
    """Return whether a stage matches all hints that are given."""
    return Stage.objects.filter(*_conditions(hints), pk=stage.pk).exists()


def hinted_stage(permissions: Permissions, hints: Mapping[str, str]) -> Stage | None:
    """Return the one stage that all three hints match, if runs can be looked up there.

    None if a hint is missing or not unique, or if the stage was removed or has no release flow.
    """
    conditions = _conditions(hints)
    if len(conditions) < len(HINT_FIELDS):
        return None
    visible = Stage.objects.listed().filter(permissions.stage_filter(), *conditions)
    stages = visible.select_related("pipeline__project")[:2]
    return stages[0] if len(stages) == 1 and not requests.has_no_runs(stages[0]) else None


def _matched_hints(hints: Mapping[str, str], stage_prefix: str = "") -> Combinable:
    """Return how many hints a row matches; `stage_prefix` is the path to its stage's fields."""
    matched_hints: Combinable = Value(0)
    for condition in _conditions(hints, stage_prefix):
        matched_hints += Case(When(condition, then=1), default=0)
    return matched_hints


def _conditions(hints: Mapping[str, str], stage_prefix: str = "") -> list[Q]:
    return [
        Q(*((f"{stage_prefix}{field}__iexact", value) for field in fields), _connector=Q.OR)
        for part, fields in HINT_FIELDS.items()
        if (value := hints[part])
    ]
