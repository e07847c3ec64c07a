"""Prepare bulk aborts: the "abort all" offers of pages, and the confirmation's lists of runs."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from django.db.models import BigIntegerField, Count, QuerySet
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.aborts import abort_rules
from dashboard.aborts.bulk_request import MAX_RUNS, count_required, too_many_text, visible_runs
from dashboard.aborts.request import reason_required
from dashboard.accounts.permissions import Permissions
from dashboard.db.prepared import Parameter, PreparedQuery
from dashboard.models import Pipeline, Run, Stage
from dashboard.models.catalog import StageName
from dashboard.models.runs import RunQuerySet
from dashboard.runs import removals, statuses
from dashboard.texts.rich_text import Message, MessageTable, RichText
from dashboard.web.components.runs import row_queries, run_row
from dashboard.web.components.runs.run_row import RunRow
from dashboard.web.http import keys

# Up to this number, the list of excluded runs is shown unfolded.
_MAX_UNFOLDED = 5

_text = MessageTable(
    {
        # The button: which runs in flight it leaves out.
        "all": gettext_lazy("Abort all %(count)d in flight in %(place)s…"),
        "allowed": gettext_lazy("Abort all %(count)d in %(place)s that you can abort…"),
        "filtered": gettext_lazy(
            "Abort all %(count)d in flight in %(place)s that match the filter…"
        ),
        "other": gettext_lazy("Abort the other %(count)d in flight in %(place)s…"),
        # In place of the button.
        "too_many": gettext_lazy(
            "At most %(most)d runs can be aborted at once; there are %(count)d to abort in "
            "%(place)s."
        ),
        # Why a run is excluded.
        "removed": gettext_lazy("Removed from Northflank."),
        "ended": gettext_lazy("Already ended: %(word)s."),
        "aborting": gettext_lazy("Already being aborted."),
        # Why no abort can be requested.
        "nothing_selected": gettext_lazy("No runs selected."),
        "all_excluded": gettext_lazy("None of these runs can be aborted."),
        # What was selected and is missing.
        "some_missing": gettext_lazy("%(missing)d of the %(count)d runs can no longer be aborted."),
    }
)


@dataclass(frozen=True, slots=True)
class AbortAllOffer:
    """The "abort all" button of a page: all its runs that the user may abort now.

    Includes matching runs that are not on the current page of the list.
    """

    id: str  # of the button's element
    place: str  # as in "in Production"
    fields: list[tuple[str, str]]  # hidden form fields (name, value): which runs to select
    count: int
    has_aborting: bool = False  # other matching runs are being aborted already
    has_denied: bool = False  # the user may not abort some other matching runs
    is_filtered: bool = False  # only runs of one status

    @property
    def is_possible(self) -> bool:
        """Whether it aborts several runs, which a bulk abort can; one run has its own button."""
        return 1 < self.count <= MAX_RUNS

    @property
    def label(self) -> Message:
        """The button's label: how many runs, where and, if runs in flight are left out, why."""
        key = "filtered" if self.is_filtered else "allowed" if self.has_denied else "all"
        key = "other" if self.has_aborting and key == "all" else key
        return _text(key, count=self.count, place=self.place)

    @property
    def too_many_text(self) -> Message | str:
        """Why its runs cannot be aborted at once; empty: they can be."""
        if self.count <= MAX_RUNS:
            return ""
        return _text("too_many", most=MAX_RUNS, count=self.count, place=self.place)


class StageGroup(NamedTuple):
    """The runs to abort in all stages of one name, such as Production."""

    stage: str
    is_production: bool
    rows: list[RunRow]


@dataclass
class BulkAbortConfirmation:
    """A bulk abort before it is confirmed: the runs to abort by stage, and the excluded runs."""

    groups: list[StageGroup] = field(default_factory=list)
    excluded: list[tuple[RunRow, RichText]] = field(default_factory=list)  # (run, why)
    is_reason_required: bool = False
    is_count_required: bool = False
    blocking_reason: Message | str = ""  # why no abort can be requested; empty: one can

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

    def missing_text(self, requested_count: int) -> Message | str:
        """Return how many of the requested runs can't be aborted; empty if all can."""
        missing = requested_count - self.count
        return _text("some_missing", missing=missing, count=requested_count) if missing else ""

    @property
    def back_url(self) -> str:
        """The address of the cancel link: the runs' stage or pipeline if they share one, or Now."""
        rows = [*self.rows, *(row for row, _ in self.excluded)]
        stages = {row.stage_urls for row in rows}
        if len(stages) == 1:
            return stages.pop().page
        pipelines = {urls.pipeline for urls in stages}
        return pipelines.pop() if len(pipelines) == 1 else reverse("now")


def offer_for_pipeline(
    permissions: Permissions, pipeline_pk: int, stages: Collection[Stage]
) -> AbortAllOffer | None:
    """Return the offer of a pipeline's page, given the stages that the user may view.

    None if the user may abort in none of them. Stages must be loaded with their project.
    """
    allowed_pks = {stage.pk for stage in stages if permissions.abort_permission(stage).allowed}
    if not allowed_pks:
        return None
    rows = list(_count_by(Run.objects.in_flight().filter(stage__in=stages), "stage"))
    counts = [(total, count) for stage, total, count in rows if stage in allowed_pks]
    return _offer(
        "pipeline",
        _("this pipeline"),
        [("pipeline", str(pipeline_pk))],
        counts,
        has_denied=len(counts) < len(rows),
    )


def offer_for_stage(permissions: Permissions, stage: Stage, status: str) -> AbortAllOffer | None:
    """Return the offer of a stage's page, filtered by `status`; empty: no such filter.

    None if the user may not abort runs of the stage.
    """
    if not permissions.abort_permission(stage).allowed:
        return None
    rows = _stage_counts_query().fetch(stage=stage.pk)
    return _offer(
        # A status may contain characters that are not allowed in an id.
        run_row.dom_id(status or "any").removeprefix("run-"),
        stage.name,
        [("stage", str(stage.pk)), *([("status", status)] if status else [])],
        [(total, count) for row_status, total, count in rows if status in {"", row_status}],
        is_filtered=bool(status),
    )


def _offer(
    element: str,
    place: str,
    fields: list[tuple[str, str]],
    counts: Collection[tuple[int, int]],
    **flags: bool,
) -> AbortAllOffer:
    """Return an offer; `counts` are the runs in flight of its parts, and those not aborting."""
    total, count = sum(total for total, _ in counts), sum(count for _, count in counts)
    has_aborting = total > count
    return AbortAllOffer(
        f"abort-all-{element}", place, fields, count, has_aborting=has_aborting, **flags
    )


def selected_run_keys(request: HttpRequest, permissions: Permissions) -> list[int]:
    """Return the keys of the runs that the query string selects.

    Raise Http404 if it names a pipeline or stage that does not exist or is not visible to the user.
    """
    visible = Stage.objects.filter(permissions.stage_filter())
    if "pipeline" in request.GET:
        pipelines = Pipeline.objects.filter(permissions.project_filter("project"))
        pks = keys.parse_pks([request.GET["pipeline"]])
        pipeline = get_object_or_404(pipelines, pk__in=pks)
        runs = Run.objects.filter(stage__in=visible.filter(pipeline=pipeline))
    elif "stage" in request.GET:
        stage = get_object_or_404(visible, pk__in=keys.parse_pks([request.GET["stage"]]))
        status = request.GET.get("status", "")
        # PostgreSQL rejects NUL in text. A status of nothing else selects no run, and not all.
        runs = stage.runs.filter(status=status.replace("\0", "")) if status else stage.runs.all()
    else:
        return keys.parse_pks(request.GET.getlist("run"))
    return list(runs.in_flight().newest_first().values_list("pk", flat=True))


def prepare_confirmation(
    run_keys: Iterable[int], permissions: Permissions
) -> BulkAbortConfirmation:
    """Return the confirmation of a bulk abort, with Production first and excluded runs apart."""
    runs = visible_runs(run_keys, permissions)
    latest = row_queries.latest_aborts(runs)
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
    confirmation.is_reason_required = any(reason_required(run.stage) for run in included)
    confirmation.is_count_required = count_required(included)
    confirmation.blocking_reason = _blocking_reason(confirmation, runs)
    return confirmation


def _exclusion_reason(run: Run, row: RunRow) -> RichText:
    if not run.in_flight:
        if run.has_unknown_end:
            return removals.not_read_reason(run.stage.pipeline) or _text("removed")
        return _text("ended", word=statuses.inline_label(run.status))
    if not row.permission.allowed:
        return row.permission.denied_reason
    if not row.is_selectable:
        return row.abort_line.message.text if row.abort_line else _text("aborting")
    return ""


def _blocking_reason(confirmation: BulkAbortConfirmation, runs: Sequence[Run]) -> Message | str:
    if not runs:
        return _text("nothing_selected")
    if not confirmation.groups:
        return _text("all_excluded")
    return too_many_text(confirmation.count)


def _count_by(runs: RunQuerySet, *fields: str) -> QuerySet[Any, Any]:
    """Group runs by `fields`; a row is the fields, the run count, and the count not aborting."""
    grouped = runs.order_by().values_list(*fields)
    not_aborting = Count("pk", filter=abort_rules.not_aborting_condition())
    return grouped.annotate(total=Count("pk"), not_aborting=not_aborting)


@cache
def _stage_counts_query() -> PreparedQuery:
    runs = Run.objects.in_flight().filter(stage=Parameter("stage", BigIntegerField()))
    return PreparedQuery(_count_by(runs, "status"))
