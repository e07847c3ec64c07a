"""Prepare bulk aborts: the "abort all" offers of pages, and the confirmation's lists of runs."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

from django.db.models import BigIntegerField, Count
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.aborts import abort_rules
from dashboard.aborts.bulk_request import count_required, too_many_text, visible_runs
from dashboard.aborts.request import reason_required
from dashboard.accounts.permissions import Permissions
from dashboard.db.prepared import Parameter, PreparedQuery
from dashboard.models import Pipeline, Run, Stage
from dashboard.models.catalog import StageName
from dashboard.runs import removals, statuses
from dashboard.texts.rich_text import Message, MessageTable, RichText
from dashboard.web.components.runs import row_queries, run_row
from dashboard.web.components.runs.run_row import RunRow
from dashboard.web.http import keys

_text = MessageTable(
    {
        # Why a run is excluded.
        "removed": gettext_lazy("Removed from Northflank."),
        "ended": gettext_lazy("Already ended: %(word)s."),
        "aborting": gettext_lazy("Already being aborted."),
        # Why no abort can be requested.
        "nothing_selected": gettext_lazy("No runs selected."),
        "all_excluded": gettext_lazy("None of these runs can be aborted."),
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

    @property
    def too_many_text(self) -> str:
        """Why its runs cannot be aborted at once; empty: they can be."""
        return too_many_text(self.count)


@dataclass(frozen=True, slots=True)
class BulkAbortConfirmation:
    """A bulk abort before it is confirmed: the runs to abort by stage, and the excluded runs."""

    by_stage: dict[str, list[RunRow]]  # the runs to abort, by a name such as Production
    excluded: list[tuple[RunRow, RichText]]  # (run, why)
    is_reason_required: bool
    is_count_required: bool
    blocking_reason: Message | str  # why no abort can be requested; empty: one can

    @property
    def rows(self) -> list[RunRow]:
        """The runs to abort, in the order of their aborts."""
        return list(chain.from_iterable(self.by_stage.values()))

    @property
    def count(self) -> int:
        """The number of runs to abort."""
        return len(self.rows)

    @property
    def production_count(self) -> int:
        """The number of runs to abort in Production."""
        return len(self.by_stage.get(StageName.PRODUCTION, ()))


def offer_for_pipeline(
    permissions: Permissions, pipeline_pk: int, stages: Collection[Stage]
) -> AbortAllOffer | None:
    """Return the offer of a pipeline's page, given the stages that the user may view.

    None if the user may abort in none of them. Stages must be loaded with their project.
    """
    allowed_pks = {stage.pk for stage in stages if permissions.abort_permission(stage).allowed}
    if not allowed_pks:
        return None
    runs = Run.objects.in_flight().filter(stage__in=allowed_pks)
    count = runs.filter(abort_rules.not_aborting_condition()).count()
    fields = [("pipeline", str(pipeline_pk))]
    return AbortAllOffer("abort-all-pipeline", _("this pipeline"), fields, count)


def offer_for_stage(permissions: Permissions, stage: Stage, status: str) -> AbortAllOffer | None:
    """Return the offer of a stage's page, filtered by `status`; empty: no such filter.

    None if the user may not abort runs of the stage.
    """
    if not permissions.abort_permission(stage).allowed:
        return None
    rows = _stage_counts_query().fetch(stage=stage.pk)
    return AbortAllOffer(
        # A status may contain characters that are not allowed in an id.
        run_row.dom_id(status or "any").replace("run-", "abort-all-", 1),
        stage.name,
        [("stage", str(stage.pk)), *([("status", status)] if status else [])],
        sum(count for row_status, count in rows if status in {"", row_status}),
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
    by_stage: dict[str, list[RunRow]] = {name: [] for name in reversed(StageName.values)}
    excluded: list[tuple[RunRow, RichText]] = []
    included: list[Run] = []
    for run in runs:
        row = run_row.build_row(run, permissions.abort_permission(run.stage), latest.get(run.pk))
        if exclusion_reason := _exclusion_reason(run, row):
            excluded.append((row, exclusion_reason))
        else:
            included.append(run)
            by_stage.setdefault(run.stage.name, []).append(row)
    return BulkAbortConfirmation(
        {name: rows for name, rows in by_stage.items() if rows},
        excluded,
        is_reason_required=any(reason_required(run.stage) for run in included),
        is_count_required=count_required(included),
        blocking_reason=_blocking_reason(runs, included),
    )


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


def _blocking_reason(runs: Sequence[Run], included: Sequence[Run]) -> Message | str:
    if not runs:
        return _text("nothing_selected")
    return too_many_text(len(included)) if included else _text("all_excluded")


@cache
def _stage_counts_query() -> PreparedQuery:
    """How many runs of a stage can be aborted, by status."""
    in_flight = Run.objects.in_flight().filter(stage=Parameter("stage", BigIntegerField()))
    abortable = in_flight.filter(abort_rules.not_aborting_condition())
    return PreparedQuery(abortable.order_by().values_list("status").annotate(Count("pk")))
