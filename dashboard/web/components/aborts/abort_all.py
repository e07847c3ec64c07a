"""Prepare bulk aborts: the "abort all" offers of pages, and the confirmation's lists of runs."""

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
from dashboard.web.components import in_flight
from dashboard.web.components.runs import run_row
from dashboard.web.components.runs.run_row import RunRow
from dashboard.web.http import keys
from dashboard.web.http.lookup import PageNotFound

# Up to this number, the list of excluded runs is shown unfolded.
_MAX_UNFOLDED = 5

# Known statuses in which a run can be aborted.
_ABORTABLE_STATUSES = [
    each
    for each in statuses.RUN_STATUSES
    if each not in {"aborting", "aborted", "success", "failure", "skipped"}
]


@dataclass(frozen=True, slots=True)
class AbortAllOffer:
    """The "abort all" button of a page: all matching runs that the user may abort now.

    Includes matching runs that are not on the current page of the list.
    """

    id: str  # of the button's element
    fields: list[tuple[str, str]]  # hidden form fields (name, value): which runs to select
    count: int
    has_aborting: bool = False  # other matching runs are being aborted already
    has_denied: bool = False  # the user may not abort some other matching runs

    @property
    def has_several(self) -> bool:
        """Whether it aborts more than one run; a single run has its own button."""
        return self.count > 1

    @property
    def label(self) -> str:
        """The button's label: the number of runs and, if runs in flight are left out, why."""
        if self.has_aborting and self.has_denied:
            text = _("Abort the other %(count)d that you can abort…")
        elif self.has_aborting:
            text = _("Abort the other %(count)d in flight here…")
        elif self.has_denied:
            text = _("Abort all %(count)d that you can abort…")
        else:
            text = _("Abort all %(count)d in flight here…")
        return text % {"count": self.count}


@dataclass(frozen=True, slots=True)
class StageGroup:
    """The runs to abort in all stages of one name, such as Production."""

    stage: str
    is_production: bool
    rows: list[RunRow]


@dataclass
class BulkAbortConfirmation:
    """A bulk abort before it is confirmed: the runs to abort by stage, and the excluded runs."""

    groups: list[StageGroup] = field(default_factory=list)
    excluded: list[tuple[RunRow, MessageText]] = field(default_factory=list)  # (run, why)
    is_reason_required: bool = False
    is_count_required: bool = False
    blocking_reason: str = ""  # why no abort can be requested; empty: one can

    @property
    def rows(self) -> list[RunRow]:
        """The runs to abort, in the order of their aborts."""
        return [row for group in self.groups for row in group.rows]

    @property
    def count(self) -> int:
        """The number of runs to abort."""
        return len(self.rows)

    @property
    def production_count(self) -> int:
        """The number of runs to abort in Production."""
        return sum(len(group.rows) for group in self.groups if group.is_production)

    @property
    def is_all_production(self) -> bool:
        """Whether all runs to abort are in Production."""
        return self.production_count == self.count

    @property
    def is_excluded_unfolded(self) -> bool:
        """Whether the list of excluded runs is shown unfolded."""
        return len(self.excluded) <= _MAX_UNFOLDED

    def missing_text(self, requested_count: int) -> str:
        """Return how many of the requested runs can't be aborted; empty if all can."""
        missing = requested_count - self.count
        template = _("%(missing)d of the %(count)d runs can no longer be aborted.")
        return template % {"missing": missing, "count": requested_count} if missing else ""

    @property
    def back_url(self) -> str:
        """The address of the cancel link: the runs' stage if they share one, else the Now page."""
        stages = {row.stage_url for row in [*self.rows, *(row for row, _ in self.excluded)]}
        return stages.pop() if len(stages) == 1 else reverse("now")


def offer_for_now(permissions: Permissions) -> AbortAllOffer | None:
    """Return the offer of the Now page, or None if the user may not abort anywhere."""
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
    """Return the offers of a stage's page by status filter; the key "" is for no status filter.

    Empty if the user may not abort runs of the stage.
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
    """Return the keys of the runs that the query string selects.

    Raise PageNotFound if it names a stage that does not exist or is not visible to the user.
    """
    if request.GET.get("page") == "now":
        return list(in_flight.in_flight(permissions).values_list("pk", flat=True))
    if "stage" in request.GET:
        stages = Stage.objects.filter(
            permissions.stage_filter(), pk__in=keys.parse_pks([request.GET["stage"]])
        )
        stage = stages.first()
        if stage is None:
            raise PageNotFound(_("Stage not found."))
        runs = stage.runs.in_flight().newest_first()
        status = request.GET.get("status", "")
        return list((runs.filter(status=status) if status else runs).values_list("pk", flat=True))
    return keys.parse_pks(request.GET.getlist("run"))


def prepare_confirmation(
    run_keys: Iterable[int], permissions: Permissions
) -> BulkAbortConfirmation:
    """Return the confirmation of a bulk abort, with Production first and excluded runs apart."""
    runs = aborts.visible_runs(run_keys, permissions)
    latest = run_row.latest_aborts(runs)
    confirmation = BulkAbortConfirmation()
    included: list[Run] = []
    by_stage: dict[str, list[RunRow]] = {name: [] for name in reversed(StageName.values)}
    for run in runs:
        row = run_row.build_row(run, permissions.abort_permission(run.stage), latest.get(run.pk))
        if exclusion_reason := _exclusion_reason(run, row):
            confirmation.excluded.append((row, exclusion_reason))
            continue
        included.append(run)
        by_stage.setdefault(run.stage.name, []).append(row)
    confirmation.groups = [
        StageGroup(name, name == StageName.PRODUCTION, stage_rows)
        for name, stage_rows in by_stage.items()
        if stage_rows
    ]
    confirmation.is_reason_required = any(aborts.reason_required(run.stage) for run in included)
    confirmation.is_count_required = aborts.count_required(included)
    confirmation.blocking_reason = _blocking_reason(confirmation, runs)
    return confirmation


def _exclusion_reason(run: Run, row: RunRow) -> MessageText:
    if not run.in_flight:
        if row.is_removed:
            return _("Removed from Northflank.")
        return _("Already ended: %(word)s.") % {"word": statuses.inline_label(run.status)}
    if not row.may_abort:
        return row.denied_reason
    if not row.is_selectable:
        return row.abort.message.text if row.abort else _("Already being aborted.")
    return ""


def _blocking_reason(confirmation: BulkAbortConfirmation, runs: Sequence[Run]) -> str:
    if not runs:
        return _("No runs selected.")
    if not confirmation.groups:
        return _("None of these runs can be aborted.")
    if confirmation.count > aborts.MAX_RUNS:
        return _("At most %(most)d runs can be aborted at once; %(count)d are selected.") % {
            "most": aborts.MAX_RUNS,
            "count": confirmation.count,
        }
    return ""


def _count_by(runs: RunQuerySet, *fields: str) -> Iterable[tuple[Any, ...]]:
    """Group runs by `fields`; a row is the fields, the run count, and the count not aborting."""
    not_aborting = ~Q(status="aborting") & ~Q(pk__in=Abort.objects.open().values("run"))
    grouped = runs.order_by().values_list(*fields)
    return grouped.annotate(all=Count("pk"), idle=Count("pk", filter=not_aborting))


def _stage_offer(stage: Stage, status: str, total: int, count: int) -> AbortAllOffer:
    fields = [("stage", str(stage.pk)), *([("status", status)] if status else [])]
    # A status may contain characters that are not allowed in an id.
    element_id = f"abort-all-{run_row.dom_id(status or 'any').removeprefix('run-')}"
    return AbortAllOffer(element_id, fields, count, has_aborting=total > count)
