"""Table rows of runs: prepared for templates, rendered, and cached per version and names.

Cached rows are shared by all users with the same abort permission. The cache's size limits
their number.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache as cache_result
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

from django.core.cache import cache
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.db.models import QuerySet
from django.utils.safestring import SafeString

from dashboard.aborts import abort_rules
from dashboard.aborts import messages as abort_messages
from dashboard.accounts.permissions import Permission, Permissions
from dashboard.db.prepared import Keys, PreparedModels, PreparedQuery
from dashboard.db.threads import now
from dashboard.models import Abort, Acknowledgement, Run, Stage
from dashboard.models.runs import RunQuerySet
from dashboard.runs import (
    abort_clock,
    acknowledgement_rules,
    acknowledgements,
    overdue_messages,
    statuses,
)
from dashboard.runs.overdue import NOT_STARTED_STATUSES, Timer
from dashboard.runs.overdue_messages import OverdueMessage
from dashboard.runs.summary import step_summary
from dashboard.texts import durations
from dashboard.texts.rich_text import ExternalText, Message, RichText
from dashboard.web.components import macros
from dashboard.web.components.runs import acknowledged_by, progress_bar
from dashboard.web.components.runs.acknowledged_by import ActiveAcknowledgements
from dashboard.web.components.runs.progress_bar import Progress
from dashboard.web.http import links

# The fields of a run that its row is made of: a third of the columns of a run and its stage.
FIELDS = (
    "run_id",
    "name",
    "version",
    "status",
    "status_since",
    "concluded",
    "in_flight",
    "created_at",
    "started_at",
    "concluded_at",
    "ended_at",
    "removed_at",
    "step",
    "step_started_at",
    "detail_synced_at",
    "overdue_severity",
    "overdue_reason",
    "approval_since",
    "aborting_since",
    "abort_severity",
    "stage_id",
)
STAGE_FIELDS = (
    "name",
    "pipeline__slug",
    "pipeline__name",
    "pipeline__project__slug",
    "pipeline__project__name",
)
_STAGE: Any = Run._meta.get_field("stage")
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


@dataclass(frozen=True, slots=True)
class AbortLine:
    """An abort in one line of text."""

    message: abort_messages.AbortMessage
    requested_by: str  # empty: not by the latest abort made here
    requested_at: datetime
    reason: str
    under_way_since: datetime | None  # None: not under way
    is_minimum: bool = False  # it may have started before `under_way_since`


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run, prepared for templates; templates do not apply rules of their own."""

    key: int
    version: int
    run_id: str
    dom_id: str
    url: str
    abort_url: str
    acknowledge_url: str
    dismiss_url: str
    title: str
    project: str
    pipeline: str
    stage: str
    pipeline_url: str
    stage_url: str
    status: str
    label: str
    tooltip: str
    tone: str
    glyph: str
    in_flight: bool
    concluded: bool
    is_removed: bool
    created_at: datetime
    started_at: datetime | None
    concluded_at: datetime | None
    duration: str  # empty: not known, or the run goes on
    progress: Progress | None  # None: not in flight, or no typical duration
    overdue_message: OverdueMessage | None  # None: not overdue
    step: str
    short_summary: RichText  # the current step, its elapsed time and its typical duration
    step_tone: str
    abort: AbortLine | None
    acknowledgements: ActiveAcknowledgements | None
    is_abortable: bool
    is_selectable: bool  # for a bulk abort: in flight, and no abort under way
    abort_severity: int  # a models.severity.Severity
    is_retry_offered: bool  # the abort under way is so overdue that another can be requested
    may_abort: bool
    denied_reason: Message | str

    @property
    def overdue_severity(self) -> int:
        """The run's overdue severity; 0 if it is not overdue."""
        return self.overdue_message.severity if self.overdue_message else 0

    @property
    def summary_tone(self) -> str:
        """The tone of the run's summary: how overdue it is comes before its status."""
        return self.overdue_message.tone if self.overdue_message else self.tone

    @property
    def has_unknown_end(self) -> bool:
        """Whether the run was removed before it had concluded."""
        return self.is_removed and not self.concluded

    @property
    def has_not_started(self) -> bool:
        """Whether the run has not started by its status; Northflank may omit a start time."""
        return self.status in NOT_STARTED_STATUSES | {"skipped"} and not self.has_unknown_end

    @property
    def elapsed_since(self) -> datetime | None:
        """When the run started, or was created if it has not started.

        None: it has concluded, or was removed and may have ended at any time.
        """
        is_over = self.concluded or self.is_removed
        return None if is_over else self.started_at or self.created_at

    @property
    def external_abort(self) -> AbortLine | None:
        """The abort under way if it is not by the latest one made here."""
        return self.abort if self.abort and not self.abort.requested_by else None

    @property
    def may_select(self) -> bool:
        """Whether the user may select the run for a bulk abort."""
        return self.is_selectable and self.may_abort


class RowKey(NamedTuple):
    """What decides which row of a run is rendered for whom."""

    pk: int
    version: int
    run_id: str
    project: int  # key
    stage: str  # name
    project_name: str
    pipeline_name: str

    @property
    def dom_id(self) -> str:
        return dom_id(self.run_id)


def dom_id(run_id: str) -> str:
    """Return `run-<id>`; a run id that is unsafe in an id attribute or a selector is hashed."""
    if _PLAIN_ID.fullmatch(run_id):
        return f"run-{run_id}"
    return f"run-x-{blake2b(run_id.encode(), digest_size=12).hexdigest()}"


def build_row(
    run: Run,
    permission: Permission,
    abort: Abort | None,
    timers: Sequence[Timer] = (),
    active_acknowledgements: Sequence[Acknowledgement] = (),
) -> RunRow:
    """Return the row of a run.

    `abort` is the run's latest abort; `timers` are its timers (see runs/overdue.py).
    """
    stage = run.stage
    pipeline = stage.pipeline
    display = statuses.for_run(run.status, removed=run.has_unknown_end)
    stage_urls = links.stage_urls(stage)
    urls = stage_urls.of_run(run.run_id)
    started_at = run.started_at or run.created_at
    return RunRow(
        key=run.pk,
        version=run.version,
        run_id=run.run_id,
        dom_id=dom_id(run.run_id),
        url=urls.page,
        abort_url=urls.abort,
        acknowledge_url=urls.acknowledge,
        dismiss_url=urls.dismiss,
        title=run.title,
        project=pipeline.project.name,
        pipeline=pipeline.name,
        stage=stage.name,
        pipeline_url=stage_urls.pipeline,
        stage_url=stage_urls.page,
        status=run.status,
        label=display.label,
        tooltip=display.description,
        tone=display.tone,
        glyph=display.glyph,
        in_flight=run.in_flight,
        concluded=run.concluded,
        is_removed=run.removed_at is not None,
        created_at=run.created_at,
        started_at=run.started_at,
        concluded_at=run.concluded_at,
        duration=durations.format_duration(run.concluded_at - started_at)
        if run.concluded_at
        else "",
        progress=progress_bar.for_run(run, timers),
        overdue_message=overdue_messages.describe(run.overdue_severity, run.overdue_reason, timers)
        if run.in_flight
        else None,
        step=run.step if run.in_flight else "",
        short_summary=_short_summary(run, timers),
        step_tone=display.tone,
        abort=_abort_line(abort, run),
        acknowledgements=acknowledged_by.active(active_acknowledgements),
        is_abortable=abort_rules.is_abortable(run, abort),
        is_selectable=abort_rules.is_selectable(run, abort),
        abort_severity=run.abort_severity,
        is_retry_offered=abort_rules.is_retry_offered(run, abort),
        may_abort=permission.allowed,
        denied_reason=permission.denied_reason,
    )


def _short_summary(run: Run, timers: Sequence[Timer]) -> RichText:
    """Return the summary of the current step; of a removed run its last known step alone."""
    if not run.has_unknown_end:
        return step_summary(run, timers)
    return ExternalText(run.step) if run.in_flight and run.step else ""


def _abort_line(abort: Abort | None, run: Run) -> AbortLine | None:
    clock = abort_clock.start(run, abort)
    if abort_messages.is_external(abort, run) and clock is not None:
        message = abort_messages.describe_external(run, abort)
        return AbortLine(message, "", clock.at, "", clock.at, clock.is_approximate)
    if abort is None:
        return None
    under_way_clock = clock if abort.settled_at is None else None
    message = abort_messages.describe(abort, run)
    return AbortLine(
        message=message,
        requested_by=abort.username,
        requested_at=abort.requested_at,
        reason=abort.reason,
        under_way_since=under_way_clock.at if under_way_clock else None,
        is_minimum=under_way_clock is not None and under_way_clock.is_approximate,
    )


def latest_aborts(runs: Iterable[Run]) -> dict[int, Abort]:
    """Return the latest abort of each run that has one, by the run's key."""
    aborts = _aborts_query().fetch(runs=[run.pk for run in runs])
    return {abort.run_id: abort for abort in aborts}


@cache_result
def _aborts_query() -> PreparedModels[Abort]:
    return PreparedModels(Abort.objects.filter(run__in=Keys("runs")).order_by("pk"))


def _load_runs(pks: Iterable[int]) -> list[Run]:
    """Return runs with what their rows show; those of one stage share its object."""
    runs = _rows_query().fetch(runs=pks)
    stage_keys = {run.stage_id for run in runs}
    stages = {stage.pk: stage for stage in _stages_query().fetch(stages=stage_keys)}
    runs = [run for run in runs if run.stage_id in stages]  # it may have been deleted meanwhile
    for run in runs:
        _STAGE.set_cached_value(run, stages[run.stage_id])
    return runs


@cache_result
def _rows_query() -> PreparedModels[Run]:
    return PreparedModels(Run.objects.filter(pk__in=Keys("runs")).only(*FIELDS))


@cache_result
def _stages_query() -> PreparedModels[Stage]:
    stages = Stage.objects.filter(pk__in=Keys("stages")).select_related("pipeline__project")
    return PreparedModels(stages.only(*STAGE_FIELDS))


def load_keys(runs: Iterable[int]) -> list[RowKey]:
    """Return the keys of the rows of runs, given by key; newest run first."""
    return [RowKey(*values) for values in _row_keys_query().fetch(runs=runs)]


@cache_result
def _row_keys_query() -> PreparedQuery:
    runs = Run.objects.filter(pk__in=Keys("runs")).newest_first()
    return PreparedQuery(row_key_values(runs))


def row_key_values(runs: RunQuerySet) -> QuerySet[Any, Any]:
    """Return a query for the values of the row keys of `runs`."""
    project, pipeline = "stage__pipeline__project", "stage__pipeline"
    names = f"{project}__name", f"{pipeline}__name"
    return runs.values_list("pk", "version", "run_id", project, "stage__name", *names)


def render_rows(keys: Iterable[RowKey], permissions: Permissions) -> dict[int, SafeString]:
    """Return the rendered rows, by run key and in the order of `keys`.

    Only rows that are not cached are loaded and rendered.
    """
    permission_at = lru_cache(permissions.abort_permission_at)  # most rows are of few stages
    cache_keys = {
        key.pk: _cache_key(
            key.pk,
            key.version,
            _variant(permission_at(key.project, key.stage), key.project_name, key.pipeline_name),
        )
        for key in keys
    }
    cached = cache.get_many(cache_keys.values())
    missing = [pk for pk, key in cache_keys.items() if key not in cached]
    rendered = _render_and_cache(_load_runs(missing) if missing else (), permissions)
    html_by_pk = {pk: rendered.get(pk) or cached.get(key) for pk, key in cache_keys.items()}
    # Not by mark_safe, which looks for lazy texts first: a twentieth of a page.
    return {pk: SafeString(html) for pk, html in html_by_pk.items() if html}


def render_loaded(
    runs: Collection[Run],
    permissions: Permissions,
    aborts: Mapping[int, Abort] | None = None,
) -> dict[int, SafeString]:
    """Return the rendered rows of `runs`, by run key. Runs must be loaded with their stage.

    `aborts` are their latest aborts, by run key, if the caller has them.
    """
    keys = {run.pk: _cache_key_of(run, permissions.abort_permission(run.stage)) for run in runs}
    cached = cache.get_many(keys.values())
    missing = [run for run in runs if keys[run.pk] not in cached]
    rendered = _render_and_cache(missing, permissions, aborts)
    return {pk: SafeString(rendered.get(pk) or cached[key]) for pk, key in keys.items()}


def _cache_key_of(run: Run, permission: Permission) -> str:
    pipeline = run.stage.pipeline
    return _cache_key(
        run.pk, run.version, _variant(permission, pipeline.project.name, pipeline.name)
    )


def _cache_key(pk: int, version: int, variant: str) -> str:
    return f"row:{pk}:{version}:{variant}"


@lru_cache(maxsize=5000)
def _variant(permission: Permission, project_name: str, pipeline_name: str) -> str:
    """Return what tells the rows of one version of a run apart.

    Users see the same row but for the abort button. A new name of the pipeline or project is no
    new version of all its runs.
    """
    button = "may" if permission.allowed else str(permission.denied_reason)
    contents = "\0".join((button, project_name, pipeline_name))
    return blake2b(contents.encode(), digest_size=8).hexdigest()


def _render_and_cache(
    runs: Iterable[Run], permissions: Permissions, aborts: Mapping[int, Abort] | None = None
) -> dict[int, SafeString]:
    runs = list(runs)
    if aborts is None:
        aborts = latest_aborts(runs) if runs else {}
    timers = progress_bar.load_timers(runs)
    at = now()
    active_acknowledgements = acknowledgements.active_by_run(runs, at)
    rendered: dict[int, SafeString] = {}
    permission_at = lru_cache(permissions.abort_permission_at)  # most rows are of few stages
    for run in runs:
        permission = permission_at(run.stage.pipeline.project_id, run.stage.name)
        acknowledged = active_acknowledgements.get(run.pk, ())
        row = build_row(run, permission, aborts.get(run.pk), timers.get(run.pk, ()), acknowledged)
        html = rendered[run.pk] = macros.render("run_row.html#run_row", row)
        # What was read after the run may be newer than its version: no later page has this key.
        # Acknowledgements of a failed run end without a new version of it.
        expiry = acknowledgement_rules.expires_at(run) if acknowledged else None
        timeout = (expiry - at).total_seconds() if expiry else DEFAULT_TIMEOUT
        cache.set(_cache_key_of(run, permission), html, timeout)
    return rendered
