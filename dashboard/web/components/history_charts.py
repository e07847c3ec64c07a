"""The latest concluded runs of stages as strips, ready for pages.

A strip is rendered when it is first wanted, and kept until another run of its stage has ended: what
a page costs is one look-up in an index a stage, whatever the length of the history.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import batched
from typing import Any

from django.core.cache import cache
from django.db.models import OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.safestring import SafeString, mark_safe

from dashboard.models import Run, Stage
from dashboard.web.components import history_chart
from dashboard.web.components.history_chart import Past

TOGETHER = 100  # stages in one question


def strips(
    stages: Collection[Stage], *, brief: bool = False, here: int = 0
) -> dict[int, SafeString]:
    """Return the strips of some stages by their keys; empty where no run has concluded.

    `brief` ones have no words but their title; `here` is the key of a run to point at.
    """
    zone = timezone.get_current_timezone_name()
    keys = {
        stage: f"strip:{stage}:{brief}:{here}:{zone}:{state}"
        for stage, state in _states([stage.pk for stage in stages]).items()
    }
    ready = cache.get_many(keys.values())
    missing = [stage for stage, key in keys.items() if key not in ready]
    fresh = _rendered(missing, brief=brief, here=here) if missing else {}
    cache.set_many({keys[stage]: html for stage, html in fresh.items()})
    return {
        stage: mark_safe(ready[key] if key in ready else fresh[stage])
        for stage, key in keys.items()
    }


def _states(stages: list[int]) -> dict[int, int | None]:
    """Return what changes when a run of a stage has ended."""
    ended = Run.objects.filter(stage=OuterRef("pk"), in_flight=False).order_by("-version")
    newest = Subquery(ended.values("version")[:1])
    return dict(Stage.objects.filter(pk__in=stages).order_by().values_list("pk", newest))


def _rendered(stages: list[int], *, brief: bool, here: int) -> dict[int, str]:
    past = _past(stages)
    found = {}
    for stage in stages:
        drawn = history_chart.of(past.get(stage, []), here=here)
        template = "strip.html#brief" if brief else "strip.html#strip"
        parts = {"strip": drawn, "view_box": history_chart.VIEW_BOX}
        found[stage] = render_to_string(template, parts).strip() if drawn else ""
    return found


def _past(stages: Sequence[int]) -> dict[int, list[Past]]:
    """Return the latest runs of each stage that have concluded, the newest first."""
    found: dict[int, list[Past]] = {}
    for some in batched(stages, TOGETHER, strict=False):
        for stage, key, status, began, concluded_at in _ended(some):
            took = concluded_at - began if concluded_at and concluded_at >= began else None
            found.setdefault(stage, []).append(Past(key, status, took, concluded_at))
    return found


def _ended(stages: Sequence[int]) -> Iterable[tuple[Any, ...]]:
    ended = Run.objects.filter(in_flight=False, concluded=True).newest_first()
    wanted = Q(stage=stages[0])
    if len(stages) > 1:
        # The last that is wanted is found in the index, and the others from there on: a window
        # over all runs would read them all.
        of_stage = ended.filter(stage=OuterRef("pk")).values("created_at")
        since = Subquery(of_stage[history_chart.MOST - 1 : history_chart.MOST])
        firsts = Stage.objects.filter(pk__in=stages).order_by().values_list("pk", since)
        wanted = Q(pk__in=[])
        for stage, first in firsts:
            wanted |= Q(stage=stage, created_at__gte=first) if first else Q(stage=stage)
    began = Coalesce("started_at", "created_at")
    rows = ended.filter(wanted).values_list("stage", "pk", "status", began, "concluded_at")
    return rows[: history_chart.MOST] if len(stages) == 1 else rows
