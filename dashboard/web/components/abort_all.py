"""Aborting many runs, as pages ask for it: which runs, which not and why, and all of a page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _

from dashboard import aborts
from dashboard.aborts.messages import Said
from dashboard.accounts.permissions import Rights
from dashboard.models import Abort, Run, Stage
from dashboard.models.catalog import StageName
from dashboard.models.runs import RunQuerySet
from dashboard.runs import statuses
from dashboard.web.components import in_flight, run_row
from dashboard.web.components.run_row import Row
from dashboard.web.http import keys
from dashboard.web.http.lookup import NothingHere

# The statuses in which a run can be aborted, as far as we know them.
_IDLE = [
    each
    for each in statuses.RUN
    if each not in {"aborting", "aborted", "success", "failure", "skipped"}
]


@dataclass(frozen=True, slots=True)
class AllOf:
    """All runs behind a page and its filter that a person may abort now, also those off screen."""

    id: str  # of the element that offers it
    fields: list[tuple[str, str]]
    count: int
    aborting: bool = False  # there are others, which somebody is aborting already
    barred: bool = False  # there are others, which the person may not abort

    @property
    def text(self) -> str:
        """What the button says: how many and, where that is not all in flight, why."""
        if self.aborting and self.barred:
            text = _("Abort all %(count)d that you may abort and nobody is aborting…")
        elif self.aborting:
            text = _("Abort all %(count)d that nobody is aborting…")
        elif self.barred:
            text = _("Abort all %(count)d that you may abort…")
        else:
            text = _("Abort all %(count)d in flight here…")
        return text % {"count": self.count}


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one kind of stage: what is at stake is the same for all of them."""

    stage: str
    production: bool
    rows: list[Row]


@dataclass
class Asked:
    """A list before anything is done: the runs to abort by stage, and those left out."""

    groups: list[Group] = field(default_factory=list)
    left_out: list[tuple[Row, Said]] = field(default_factory=list)  # with why
    reason_required: bool = False
    cannot: str = ""  # why nothing can be asked for

    @property
    def rows(self) -> list[Row]:
        """The runs to abort, in the order in which they will be."""
        return [row for group in self.groups for row in group.rows]

    @property
    def count(self) -> int:
        """How many runs are to be aborted."""
        return len(self.rows)

    @property
    def in_production(self) -> int:
        """How many of them are in Production."""
        return sum(len(group.rows) for group in self.groups if group.production)

    @property
    def back_url(self) -> str:
        """Where to go on without aborting: their stage where it is one, else Now."""
        stages = {row.stage_url for row in [*self.rows, *(row for row, _ in self.left_out)]}
        return stages.pop() if len(stages) == 1 else reverse("now")


def all_of_now(rights: Rights) -> AllOf | None:
    """Return what Now offers; None: the person may abort nowhere."""
    if not rights.may_abort_somewhere:
        return None
    seen = Run.objects.in_flight().filter(rights.places("stage"))
    counts = [
        (rights.verdict(project, name).allowed, flying, idle)
        for project, name, flying, idle in _counts(seen, "stage__pipeline__project", "stage__name")
    ]
    return AllOf(
        "all-now",
        [("page", "now")],
        count=sum(idle for allowed, _flying, idle in counts if allowed),
        aborting=any(flying > idle for allowed, flying, idle in counts if allowed),
        barred=not all(allowed for allowed, _flying, _idle in counts),
    )


def all_of_stage(rights: Rights, stage: Stage) -> dict[str, AllOf]:
    """Return what a stage's page offers under each status it may be filtered by; "": under none.

    Empty where the person may not abort.
    """
    if not rights.may_abort(stage).allowed:
        return {}
    counts = dict.fromkeys(_IDLE, (0, 0))
    for status, flying, idle in _counts(stage.runs.in_flight(), "status"):
        counts[status] = flying, idle
    counts[""] = (
        sum(flying for flying, _idle in counts.values()),
        sum(idle for _flying, idle in counts.values()),
    )
    return {status: _of_stage(stage, status, *count) for status, count in counts.items()}


def chosen(request: HttpRequest, rights: Rights) -> list[int]:
    """Return the keys of the runs that an address asks about; raises NothingHere."""
    if request.GET.get("page") == "now":
        return list(in_flight.in_flight(rights).values_list("pk", flat=True))
    if "stage" in request.GET:
        stages = Stage.objects.filter(rights.places(), pk__in=keys.among([request.GET["stage"]]))
        stage = stages.first()
        if stage is None:
            raise NothingHere(_("No such stage is known here."))
        runs = stage.runs.in_flight().newest_first()
        status = request.GET.get("status", "")
        return list((runs.filter(status=status) if status else runs).values_list("pk", flat=True))
    return keys.among(request.GET.getlist("run"))


def asked(run_keys: Iterable[int], rights: Rights) -> Asked:
    """Prepare a list for its confirmation: Production first, and what is left out apart."""
    runs = aborts.visible(run_keys, rights)
    latest = run_row.latest_aborts(runs)
    found = Asked()
    by_stage: dict[str, list[Row]] = {name: [] for name in reversed(StageName.values)}
    for run in runs:
        row = run_row.row(run, rights.may_abort(run.stage), latest.get(run.pk))
        if why := _why_left_out(run, row):
            found.left_out.append((row, why))
            continue
        by_stage.setdefault(run.stage.name, []).append(row)
        found.reason_required |= aborts.reason_required(run.stage)
    found.groups = [
        Group(name, name == StageName.PRODUCTION, each) for name, each in by_stage.items() if each
    ]
    found.cannot = _cannot(found, runs)
    return found


def _why_left_out(run: Run, row: Row) -> Said:
    if not run.in_flight:
        if row.gone:
            return _("Northflank knows it no more.")
        return _("It has ended: %(word)s.") % {"word": statuses.within(run.status)}
    if not row.may_abort:
        return row.why_not
    if not row.selectable:
        return row.abort.story.said if row.abort else _("It is being aborted already.")
    return ""


def _cannot(found: Asked, runs: Sequence[Run]) -> str:
    if not runs:
        return _("No run is selected.")
    if not found.groups:
        return _("None of these runs can be aborted.")
    if found.count > aborts.MOST:
        return _("At most %(most)d runs can be aborted at once; these are %(count)d.") % {
            "most": aborts.MOST,
            "count": found.count,
        }
    return ""


def _counts(runs: RunQuerySet, *by: str) -> Iterable[tuple[Any, ...]]:
    """Count runs by some fields: those, how many there are, and how many nobody is aborting."""
    idle = ~Q(status="aborting") & ~Q(pk__in=Abort.objects.open().values("run"))
    grouped = runs.order_by().values_list(*by)
    return grouped.annotate(all=Count("pk"), idle=Count("pk", filter=idle))


def _of_stage(stage: Stage, status: str, flying: int, count: int) -> AllOf:
    fields = [("stage", str(stage.pk)), *([("status", status)] if status else [])]
    # A status may be any text; an id may not.
    id = f"all-{run_row.dom_id(status or 'any').removeprefix('run-')}"
    return AllOf(id, fields, count, aborting=flying > count)
