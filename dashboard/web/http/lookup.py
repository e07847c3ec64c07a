"""Projects, pipelines, stages and runs by address, or a 404 that says what was looked for.

What a person may not see is looked for in vain, with the very answer of what does not exist.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Case, Exists, F, OuterRef, Q, QuerySet, Value, When
from django.db.models.expressions import Combinable
from django.http import Http404
from django.urls import reverse
from django.utils.translation import gettext as _

from dashboard.accounts.permissions import Rights
from dashboard.models import CatalogueSweep, Pipeline, Project, Run, Stage
from dashboard.models.catalog import StageName
from dashboard.web.components import run_row


class NothingHere(Http404):
    """Nothing is known at this address: what was looked for, and where to go on."""

    def __init__(self, looked_for: str, *onward: tuple[str, str], **more: Any) -> None:
        """`more` is for the template, such as what can be done about it."""
        super().__init__(looked_for)
        self.looked_for = looked_for
        self.onward = onward
        self.more = more


def pipeline(rights: Rights, project: str, slug: str) -> Pipeline:
    """Return a pipeline; raises NothingHere."""
    seen = Pipeline.objects.filter(rights.projects("project"))
    try:
        return seen.select_related("project").get(project__slug=project, slug=slug)
    except Pipeline.DoesNotExist:
        if Project.objects.filter(rights.projects(), slug=project).exists():
            said = _("No pipeline “%(pipeline)s” is known in project “%(project)s”.")
            raise NothingHere(said % {"pipeline": slug, "project": project}) from None
        said = _("No project “%(project)s” is known here.")
        raise NothingHere(said % {"project": project}) from None


def stage(rights: Rights, project: str, pipeline_slug: str, name: str) -> Stage:
    """Return a stage, in whatever case its name is written; raises NothingHere."""
    found = (
        Stage.objects.select_related("pipeline__project")
        .filter(
            rights.places(),
            pipeline__project__slug=project,
            pipeline__slug=pipeline_slug,
            name__iexact=name,
        )
        .first()
    )
    if found is None:
        known = pipeline(rights, project, pipeline_slug)
        raise NothingHere(
            _("Pipeline “%(pipeline)s” has no stage “%(stage)s”.")
            % {"pipeline": known, "stage": name},
            (
                _("The stages of %(pipeline)s") % {"pipeline": known},
                reverse("pipeline", args=[project, pipeline_slug]),
            ),
        )
    return found


def no_run(
    of: Stage, run_id: str, why: str = "", *onward: tuple[str, str], **more: Any
) -> NothingHere:
    """Return what to raise where a run of a stage was never seen; the rest as for NothingHere."""
    said = _("No run “%(run)s” is known in %(stage)s.") % {"run": run_id, "stage": of}
    its_runs = (
        _("The runs of %(stage)s") % {"stage": of},
        reverse("stage", args=run_row.place_args(of)),
    )
    return NothingHere(f"{said} {why}".strip(), its_runs, *onward, **more)


def run(of: Stage, run_id: str) -> Run | None:
    """Return a mirrored run of a stage, or None where it was never seen."""
    return of.runs.filter(run_id=run_id).first()  # its stage is `of` itself


HINTS = {
    "project": ("pipeline__project__slug", "pipeline__project__name"),
    "pipeline": ("pipeline__slug", "pipeline__name"),
    "stage": ("name",),
}


@dataclass(frozen=True, slots=True)
class Candidates:
    """Where a run of unknown place may be: stages by their keys, the likeliest first."""

    stages: list[int]
    everywhere: int  # how many there are without any hint

    @property
    def narrowed(self) -> bool:
        return len(self.stages) < self.everywhere


def candidates(rights: Rights, hints: Mapping[str, str]) -> Candidates:
    """Return the stages that a run of unknown place may be in.

    `hints` are what an address says of its `project`, `pipeline` and `stage`, by id or by name, in
    any case. Where they agree with some stages it is those. Where no stage agrees with all of them
    one must be wrong: it is those that agree with most; all, where none agrees with any.
    """
    agreeing: Combinable = Value(0)
    said = _said(hints)
    for same in said:
        agreeing += Case(When(same, then=1), default=0)
    known = Stage.objects.present().exclude(has_flow=False).filter(rights.places())
    flying = Exists(Run.objects.in_flight().filter(stage=OuterRef("pk")))
    order = Case(*(When(name=name, then=place) for place, name in enumerate(reversed(StageName))))
    found = list(
        known.annotate(agreeing=agreeing, flying=flying, place=order)
        .order_by(
            "-agreeing", "place", "-flying", "failures", F("active_at").desc(nulls_last=True), "pk"
        )
        .values_list("pk", "agreeing")
    )
    most = max((count for _pk, count in found), default=0)
    return Candidates([pk for pk, count in found if count == most], len(found))


def hinted(rights: Rights, hints: Mapping[str, str]) -> Stage | None:
    """Return the one stage that complete hints name; None: they are not, or name none or more."""
    said = _said(hints)
    if len(said) < len(HINTS):
        return None
    found = Stage.objects.filter(rights.places(), *said).select_related("pipeline__project")[:2]
    return found[0] if len(found) == 1 else None


def _said(hints: Mapping[str, str]) -> list[Q]:
    return [
        Q(*((f"{field}__iexact", called) for field in fields), _connector=Q.OR)
        for part, fields in HINTS.items()
        if (called := hints[part])
    ]


def lists_are_missing(rights: Rights) -> bool:
    """Say whether there may be stages that were never listed, and soon will be."""
    waiting = CatalogueSweep.objects.filter(swept_at=None, error="")
    return waiting.filter(
        Q(project=None) | Q(project__gone_at=None) & rights.projects("project")
    ).exists()


def are_listed() -> bool:
    """Say whether the list of the projects was ever read."""
    return CatalogueSweep.objects.filter(project=None, swept_at__isnull=False).exists()


def failing_lists(rights: Rights) -> QuerySet[CatalogueSweep]:
    """Return the lists of the catalogue that can't be read; that of the projects is everybody's."""
    return lists(rights).exclude(error="")


def partial_lists(rights: Rights) -> QuerySet[CatalogueSweep]:
    """Return the lists of the catalogue that can be read, and of which a part was not taken."""
    return lists(rights).filter(Q(left_out__gt=0) | Q(surplus__gt=0), error="")


def lists(rights: Rights) -> QuerySet[CatalogueSweep]:
    """Return the lists of the catalogue; that of the projects is everybody's."""
    present = CatalogueSweep.objects.filter(Q(project=None) | Q(project__gone_at=None))
    if rights.sees_all:
        return present
    seen = Project.objects.filter(rights.projects())
    return present.filter(Q(project=None) | Q(project__in=seen))
