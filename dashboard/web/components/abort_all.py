"""Aborting many runs, as pages ask for it: which runs, which not and why, and all of a page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _

from dashboard import aborts
from dashboard.aborts.messages import MessageText
from dashboard.accounts.permissions import Permissions
from dashboard.models import Abort, Run, Stage
from dashboard.models.catalog import StageName
from dashboard.models.runs import RunQuerySet
from dashboard.runs import statuses
from dashboard.web.components import in_flight, run_row
from dashboard.web.components.run_row import RunRow
from dashboard.web.http import keys
from dashboard.web.http.lookup import PageNotFound

# The statuses in which a run can be aborted, as far as we know them.
_ABORTABLE_STATUSES = [
    each
    for each in statuses.RUN_STATUSES
    if each not in {"aborting", "aborted", "success", "failure", "skipped"}
]


@dataclass(frozen=True, slots=True)
class AbortAllOffer:
    """All runs behind a page and its filter that a person may abort now, also those off screen."""

    id: str  # of the element that offers it
    fields: list[tuple[str, str]]
    count: int
    has_aborting: bool = False  # there are others, which somebody is aborting already
    has_denied: bool = False  # there are others, which the person may not abort

    @property
    def label(self) -> str:
        """What the button says: how many and, where that is not all in flight, why."""
        if self.has_aborting and self.has_denied:
            text = _("Abort all %(count)d that you may abort and nobody is aborting…")
        elif self.has_aborting:
            text = _("Abort all %(count)d that nobody is aborting…")
        elif self.has_denied:
            text = _("Abort all %(count)d that you may abort…")
        else:
            text = _("Abort all %(count)d in flight here…")
        return text % {"count": self.count}


@dataclass(frozen=True, slots=True)
class StageGroup:
    """Runs of one kind of stage: what is at stake is the same for all of them."""

    stage: str
    is_production: bool
    rows: list[RunRow]


@dataclass
class BulkAbortConfirmation:
    """A list before anything is done: the runs to abort by stage, and those left out."""

    groups: list[StageGroup] = field(default_factory=list)
    excluded: list[tuple[RunRow, MessageText]] = field(default_factory=list)  # with why
    is_reason_required: bool = False
    blocking_reason: str = ""  # why nothing can be asked for

    @property
    def rows(self) -> list[RunRow]:
        """The runs to abort, in the order in which they will be."""
        return [row for group in self.groups for row in group.rows]

    @property
    def count(self) -> int:
        """How many runs are to be aborted."""
        return len(self.rows)

    @property
    def production_count(self) -> int:
        """How many of them are in Production."""
        return sum(len(group.rows) for group in self.groups if group.is_production)

    @property
    def back_url(self) -> str:
        """Where to go on without aborting: their stage where it is one, else Now."""
        stages = {row.stage_url for row in [*self.rows, *(row for row, _ in self.excluded)]}
        return stages.pop() if len(stages) == 1 else reverse("now")


def offer_for_now(permissions: Permissions) -> AbortAllOffer | None:
    """Return what Now offers; None: the person may abort nowhere."""
    if not permissions.can_abort_anywhere:
        return None
    visible = Run.objects.in_flight().filter(permissions.stage_filter("stage"))
    counts = [
        (permissions.abort_permission_at(project, name).allowed, total, not_aborting)
        for project, name, total, not_aborting in _count_by(
            visible, "stage__pipeline__project", "stage__name"
        )
    ]
    return AbortAllOffer(
        "abort-all-now",
        [("page", "now")],
        count=sum(idle for allowed, _total, idle in counts if allowed),
        has_aborting=any(total > idle for allowed, total, idle in counts if allowed),
        has_denied=not all(allowed for allowed, _total, _not_aborting in counts),
    )


def offers_for_stage(permissions: Permissions, stage: Stage) -> dict[str, AbortAllOffer]:
    """Return what a stage's page offers under each status it may be filtered by; "": under none.

    Empty where the person may not abort.
    """
    if not permissions.abort_permission(stage).allowed:
        return {}
    counts = dict.fromkeys(_ABORTABLE_STATUSES, (0, 0))
    for status, total, not_aborting in _count_by(stage.runs.in_flight(), "status"):
        counts[status] = total, not_aborting
    counts[""] = (
        sum(total for total, _not_aborting in counts.values()),
        sum(idle for _total, idle in counts.values()),
    )
    return {status: _stage_offer(stage, status, *count) for status, count in counts.items()}


def selected_run_keys(request: HttpRequest, permissions: Permissions) -> list[int]:
    """Return the keys of the runs that an address asks about; raises NothingHere."""
    if request.GET.get("page") == "now":
        return list(in_flight.in_flight(permissions).values_list("pk", flat=True))
    if "stage" in request.GET:
        stages = Stage.objects.filter(
            permissions.stage_filter(), pk__in=keys.parse_pks([request.GET["stage"]])
        )
        stage = stages.first()
        if stage is None:
            raise PageNotFound(_("No such stage is known here."))
        runs = stage.runs.in_flight().newest_first()
        status = request.GET.get("status", "")
        return list((runs.filter(status=status) if status else runs).values_list("pk", flat=True))
    return keys.parse_pks(request.GET.getlist("run"))


def prepare_confirmation(
    run_keys: Iterable[int], permissions: Permissions
) -> BulkAbortConfirmation:
    """Prepare a list for its confirmation: Production first, and what is left out apart."""
    runs = aborts.visible_runs(run_keys, permissions)
    latest = run_row.latest_aborts(runs)
    confirmation = BulkAbortConfirmation()
    by_stage: dict[str, list[RunRow]] = {name: [] for name in reversed(StageName.values)}
    for run in runs:
        row = run_row.build_row(run, permissions.abort_permission(run.stage), latest.get(run.pk))
        if exclusion_reason := _exclusion_reason(run, row):
            confirmation.excluded.append((row, exclusion_reason))
            continue
        by_stage.setdefault(run.stage.name, []).append(row)
        confirmation.is_reason_required |= aborts.reason_required(run.stage)
    confirmation.groups = [
        StageGroup(name, name == StageName.PRODUCTION, stage_rows)
        for name, stage_rows in by_stage.items()
        if stage_rows
    ]
    confirmation.blocking_reason = _blocking_reason(confirmation, runs)
    return confirmation


def _exclusion_reason(run: Run, row: RunRow) -> MessageText:
    if not run.in_flight:
        if row.is_removed:
            return _("Northflank knows it no more.")
        return _("It has ended: %(word)s.") % {"word": statuses.inline_label(run.status)}
    if not row.may_abort:
        return row.denied_reason
    if not row.is_selectable:
        return row.abort.message.text if row.abort else _("It is being aborted already.")
    return ""


def _blocking_reason(confirmation: BulkAbortConfirmation, runs: Sequence[Run]) -> str:
    if not runs:
        return _("No run is selected.")
    if not confirmation.groups:
        return _("None of these runs can be aborted.")
    if confirmation.count > aborts.MAX_RUNS:
        return _("At most %(most)d runs can be aborted at once; these are %(count)d.") % {
            "most": aborts.MAX_RUNS,
            "count": confirmation.count,
        }
    return ""


def _count_by(runs: RunQuerySet, *fields: str) -> Iterable[tuple[Any, ...]]:
    """Count runs by some fields: those, how many there are, and how many nobody is aborting."""
    not_aborting = ~Q(status="aborting") & ~Q(pk__in=Abort.objects.open().values("run"))
    grouped = runs.order_by().values_list(*fields)
    return grouped.annotate(all=Count("pk"), idle=Count("pk", filter=not_aborting))


def _stage_offer(stage: Stage, status: str, total: int, count: int) -> AbortAllOffer:
    fields = [("stage", str(stage.pk)), *([("status", status)] if status else [])]
    # A status may be any text; an id may not.
    element_id = f"abort-all-{run_row.dom_id(status or 'any').removeprefix('run-')}"
    return AbortAllOffer(element_id, fields, count, has_aborting=total > count)
