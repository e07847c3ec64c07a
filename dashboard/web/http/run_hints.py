"""Where a run of unknown location may be, by the hints in the address of an alert's link.

Hints are the query parameters `project`, `pipeline` and `stage`: an id or a name, in any case.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from django.db.models import Q
from django.http import HttpRequest

from dashboard.accounts.permissions import Permissions
from dashboard.models import Run, Stage
from dashboard.sync import requests

HINT_FIELDS = {
    "project": ("pipeline__project__slug", "pipeline__project__name"),
    "pipeline": ("pipeline__slug", "pipeline__name"),
    "stage": ("name",),
}
NO_HINTS = dict.fromkeys(HINT_FIELDS, "")


@dataclass(frozen=True, slots=True)
class Candidates:
    """The stages that may contain a run of unknown location, as keys."""

    stage_keys: list[int]
    total: int  # number of stages without any hint

    @property
    def is_narrowed(self) -> bool:
        return len(self.stage_keys) < self.total


def of_request(request: HttpRequest) -> dict[str, str]:
    """Return the query string's `project`, `pipeline` and `stage`; empty text if missing."""
    # PostgreSQL rejects NUL in text.
    return {part: request.GET.get(part, "").replace("\0", "").strip() for part in HINT_FIELDS}


def candidate_stages(permissions: Permissions, hints: Mapping[str, str]) -> Candidates:
    """Return the stages that match the hints, or all if none does: a hint may be wrong."""
    visible = Stage.objects.listed().exclude(has_flow=False).filter(permissions.stage_filter())
    stages = list(visible.order_by("pk").values_list("pk", flat=True))
    matching = visible.filter(*_conditions(hints)).order_by("pk").values_list("pk", flat=True)
    return Candidates(list(matching) or stages, len(stages))


def find_run(permissions: Permissions, hints: Mapping[str, str], run_id: str) -> Run | None:
    """Return the newest mirrored run with this id in a stage that matches the hints, or None."""
    runs = Run.objects.with_stage().filter(permissions.stage_filter("stage"), run_id=run_id)
    return runs.filter(*_conditions(hints, "stage__")).order_by("-created_at").first()


def matches_hints(stage: Stage, hints: Mapping[str, str]) -> bool:
    """Return whether a stage matches all hints that are given."""
    return Stage.objects.filter(*_conditions(hints), pk=stage.pk).exists()


def hinted_stage(permissions: Permissions, hints: Mapping[str, str]) -> Stage | None:
    """Return the one stage that all three hints match, if it may have runs.

    None if a hint is missing or not unique, or if the stage was removed or has no release flow.
    """
    conditions = _conditions(hints)
    if len(conditions) < len(HINT_FIELDS):
        return None
    visible = Stage.objects.listed().filter(permissions.stage_filter(), *conditions)
    stages = visible.select_related("pipeline__project")[:2]
    return stages[0] if len(stages) == 1 and not requests.has_no_runs(stages[0]) else None


def _conditions(hints: Mapping[str, str], stage_prefix: str = "") -> list[Q]:
    """Return the conditions of the hints; `stage_prefix` is the path to the fields of a stage."""
    return [
        Q(*((f"{stage_prefix}{field}__iexact", value) for field in fields), _connector=Q.OR)
        for part, fields in HINT_FIELDS.items()
        if (value := hints[part])
    ]
