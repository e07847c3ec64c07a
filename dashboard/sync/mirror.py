"""Mirror Northflank's runs into rows; nothing else stores what Northflank reports of a run.

Only what changed is written. Others write what is ours of a run, such as its severity or schedule.

Each request has a number (RequestCounter), and a row stores the number of the request that it was
read with. An answer to an earlier request changes nothing, so a slow list can't undo what was read
after an abort. Time does not order answers: `requested_at` is what pages show. An answer without a
number counts as the newest.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import Any

import structlog
from django.db import transaction
from django.db.models import BigIntegerField, Q, TextField

from dashboard.db import notify as db_notify
from dashboard.db.prepared import (
    Keys,
    Parameter,
    PreparedModels,
    PreparedQuery,
    PreparedUpdate,
    parameters,
    update_row,
)
from dashboard.db.threads import now
from dashboard.models import (
    Abort,
    Acknowledgement,
    ChangeCounter,
    Dismissal,
    RequestCounter,
    Run,
    Stage,
)
from dashboard.northflank import Run as ApiRun
from dashboard.northflank import RunDetail
from dashboard.runs import acknowledgements, search, steps
from dashboard.sync import baselines, day_sums, run_rows

log = structlog.get_logger(__name__)

_UPSERT_FIELDS = [
    "name",
    "description",
    "status",
    "concluded",
    "created_at",
    "started_at",
    "concluded_at",
    "updated_at",
    "in_flight",
    "removed_at",
    "synced_at",
    "request_seq",
    "version",
    "next_detail_sync_at",
    "status_since",
    "approval_since",
    "aborting_since",
    "abort_severity",
    "overdue_severity",
    "overdue_reason",
    "turn_since",
]


def apply_runs(
    stage_id: int,
    api_runs: Iterable[ApiRun],
    *,
    requested_at: datetime,
    request_seq: int | None = None,
) -> None:
    """Mirror the runs of a list; unchanged rows get no new version."""
    by_id = {run.id: run for run in api_runs}
    with transaction.atomic():
        ChangeCounter.lock()  # or it might compare with an outdated row
        seq = take_seq(request_seq)
        stored = _listed_runs_query().fetch(stage=stage_id, run_ids=by_id)
        existing = {run.run_id: run for run in stored}
        rows: list[Run] = []
        unchanged: list[int] = []
        has_unknown = len(existing) < len(by_id)
        pruned_until = _pruned_until(stage_id) if has_unknown else None
        for run_id, api_run in by_id.items():
            old = existing.get(run_id)
            if old is not None and old.request_seq > seq:
                continue
            if old is None and run_rows.ended_before(api_run, pruned_until):
                continue
            if old is None or run_rows.is_changed(api_run, old, requested_at):
                row = run_rows.build_row(stage_id, api_run, old, requested_at, seq)
                row.next_detail_sync_at = run_rows.next_detail_sync_at(row, old)
                rows.append(row)
            elif old.in_flight:
                unchanged.append(old.pk)
        _save_rows(rows, existing)
        if unchanged:
            _unchanged_update().execute(runs=unchanged, synced_at=requested_at, request_seq=seq)


_STAGE = Parameter("stage", BigIntegerField())
_RUN_IDS = Keys("run_ids", TextField())


@cache
def _listed_runs_query() -> PreparedModels[Run]:
    return PreparedModels(Run.objects.filter(stage=_STAGE, run_id__in=_RUN_IDS).defer("steps"))


@cache
def _unchanged_update() -> PreparedUpdate:
    fields = parameters(Run, ["synced_at", "request_seq"])
    return PreparedUpdate(Run.objects.filter(pk__in=Keys("runs")), **fields)


def _pruned_until(stage_id: int) -> datetime | None:
    pruned_until: datetime | None
    [(pruned_until,)] = _pruned_query().fetch(stage=stage_id)
    return pruned_until


@cache
def _pruned_query() -> PreparedQuery:
    return PreparedQuery(Stage.objects.filter(pk=_STAGE).values_list("pruned_until"))


def apply_detail(
    stage_id: int, run_detail: RunDetail, *, requested_at: datetime, request_seq: int | None = None
) -> Run:
    """Mirror one run with its steps; return its row."""
    with transaction.atomic():
        ChangeCounter.lock()
        seq = take_seq(request_seq)
        stored = Run.objects.filter(stage_id=stage_id, run_id=run_detail.run.id)
        row = stored.first()
        if row is None:
            _save_rows([run_rows.build_row(stage_id, run_detail.run, None, requested_at, seq)], {})
            row = stored.get()
        _apply_detail(row, run_detail, requested_at, seq)
    return row


def apply_abort_response(
    abort: Abort,
    run_detail: RunDetail,
    *,
    responded_at: datetime,
    request_seq: int,
    version: int,
    is_latest: bool,
) -> Run:
    """Mirror the run in Northflank's answer to an abort; return its row with its stage.

    Call it in the transaction that stores the answer and has taken `version`. The answer to
    request `request_seq` counts as the newest, unless the run's end was read with a later one. The
    run gets the version in any case, as its abort has changed, and is due to be read now: the next
    regular read may be seconds away. `is_latest`: the run has no later abort.
    """
    [row] = _run_query().fetch(run=abort.run_id)
    row.stage = abort.run.stage
    is_overtaken = row.concluded and row.request_seq > request_seq
    seq = request_seq if is_overtaken else RequestCounter.take_next()
    _apply_detail(
        row,
        run_detail,
        responded_at,
        seq,
        latest_aborts={row.pk: abort} if is_latest else None,
        visible_changes={"next_detail_sync_at": responded_at, "version": version},
    )
    db_notify.send(db_notify.Topic.READS)
    return row


@cache
def _run_query() -> PreparedModels[Run]:
    return PreparedModels(Run.objects.filter(pk=Parameter("run", BigIntegerField())))


def _apply_detail(
    row: Run,
    run_detail: RunDetail,
    requested_at: datetime,
    seq: int,
    *,
    latest_aborts: dict[int, Abort] | None = None,
    visible_changes: dict[str, Any] | None = None,
) -> None:
    """Apply a detail to a run's row, as just read, here and in the database.

    `latest_aborts` as for `_save_rows`. `visible_changes` are stored whatever the detail shows, and
    contain a new version.
    """
    updates = visible_changes or {}
    values = search.text_values(row)
    if row.detail_request_seq > seq:
        if updates:
            update_row(Run, row.pk, **updates)
        return
    is_outdated = row.request_seq > seq  # by a list: only the steps are news
    api_run = run_detail.run
    new = row if is_outdated else run_rows.build_row(row.stage_id, api_run, row, requested_at, seq)
    # An answer without steps does not remove them.
    root = run_detail.root or steps.decode(row.steps)
    has_failed = new.has_failed and api_run.concluded  # else the answer is older than the failure
    updates |= run_rows.detail_fields(new, root, requested_at, seq, has_failed=has_failed)
    updates["release_key"] = run_detail.release_key or row.release_key
    if root is None:
        updates["steps_removed_at"] = row.steps_removed_at
    has_new_steps = any(getattr(row, field) != updates[field] for field in run_rows.STEP_FIELDS)
    if has_new_steps:
        severity, reason = run_rows.assess_overdue(new, root, requested_at)
        updates |= {"overdue_severity": severity, "overdue_reason": reason}
    if not is_outdated and run_rows.is_changed(api_run, row, requested_at):
        is_final = new.concluded and run_detail.root is not None
        schedule_fields = {"next_detail_sync_at": None} if is_final else {}
        updates = _save_rows([new], {row.run_id: row}, schedule_fields | updates, latest_aborts)
    else:
        if not is_outdated:
            updates |= {"synced_at": requested_at, "request_seq": seq}
        # A row whose step was read before its status shows less (runs/summary.py).
        was_older = row.detail_synced_at is not None and row.detail_synced_at < row.status_since
        if not visible_changes and (has_new_steps or row.failures or was_older):
            updates["version"] = ChangeCounter.take(1)
        update_row(Run, row.pk, **updates)
    if row.failures:
        log.info("run.recovered", run=row.run_id)
    tree = updates["steps"]
    # Steps read before the run's end do not count, even if they are the same.
    has_news = tree != row.steps or not row.has_final_detail
    if new.status == "success" and tree is not None and has_news:
        baselines.update_baseline(row.stage_id, now())
    for name, value in updates.items():
        setattr(row, name, value)
    search.update_texts([(row, values)])
    day_sums.update([row])
    if not row.in_flight:
        row.refresh_from_db(fields=["ended_at"])  # computed by the database


def take_seq(request_seq: int | None) -> int:
    """Return the number of a request; a new one for None, which counts as the newest."""
    if request_seq is not None:
        return request_seq
    ChangeCounter.lock()  # before the row of the other counter
    return RequestCounter.take_next()


def _save_rows(
    rows: list[Run],
    existing: dict[str, Run],
    detail_fields: dict[str, Any] | None = None,
    latest_aborts: dict[int, Abort] | None = None,
) -> dict[str, Any]:
    """Save new and changed rows of one stage, with all that depends on a change.

    `existing` are the rows as they were, by run id. With `detail_fields` there is one row, which
    exists; they are saved with it, and may contain its new version. Return all fields that it was
    given. `latest_aborts` are those of the changed runs, by the run's key, if the caller has them.
    """
    if not rows:
        return {}
    requested_at = rows[0].synced_at
    if latest_aborts is None:
        latest_aborts = _load_latest_aborts(rows, existing)
    version = (detail_fields or {}).get("version")
    first = ChangeCounter.take(len(rows)) if version is None else version
    # Lists come newest first; the oldest change gets the smallest number.
    for offset, row in enumerate(reversed(rows)):
        row.version = first + offset
    previous = [(row, existing[row.run_id]) for row in rows if row.run_id in existing]
    for row, old in previous:
        run_rows.backdate_aborting(row, old, latest_aborts.get(old.pk))
    newly_concluded = [(row, old) for row, old in previous if row.concluded and old.in_flight]
    detail_wanted = _wanting_final_detail([old.pk for _, old in newly_concluded])
    for row, _ in newly_concluded:
        row.next_detail_sync_at = requested_at if row.run_id in detail_wanted else None
    fields: dict[str, Any] = {}
    if detail_fields is None:
        Run.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["stage", "run_id"],
            update_fields=_UPSERT_FIELDS,
        )
        values = {run.run_id: search.text_values(run) for run in existing.values()}
        search.update_texts((row, values.get(row.run_id)) for row in rows)
        day_sums.update(rows)
        for row, old in newly_concluded:
            _reset_failures(row, old)
    else:
        [(row, old)] = previous
        fields = {name: getattr(row, name) for name in _UPSERT_FIELDS} | detail_fields
        update_row(Run, old.pk, **fields)
    for row, old in previous:
        abort = latest_aborts.get(old.pk)
        if abort is not None and _status_key(row) != _status_key(old):
            abort.apply_run_status(row.status, concluded=row.concluded, at=now())
    reappeared = [old.pk for _, old in previous if old.removed_at is not None]
    Dismissal.objects.all().end_for_runs(reappeared, now())
    resolved = [old.pk for row, old in newly_concluded if acknowledgements.is_resolved(row)]
    Acknowledgement.objects.all().end_for_runs(resolved, now())
    stage_id = rows[0].stage_id
    if any(row.status == "success" and row.concluded for row in rows):
        baselines.update_baseline(stage_id, now())
    update_row(Stage, stage_id, last_run_change_at=requested_at)
    return fields


def _reset_failures(row: Run, old: Run) -> None:
    """End the failures of a run that has ended, or give its final detail all of its tries."""
    if old.failures:
        is_read_again = row.next_detail_sync_at is not None
        Run.objects.filter(pk=old.pk).update(failures=int(is_read_again))
        if not is_read_again:
            log.info("run.recovered", run=old.run_id)


def _load_latest_aborts(rows: list[Run], existing: dict[str, Run]) -> dict[int, Abort]:
    """Return the latest aborts of those runs whose status, or existence, has changed."""
    changed = [
        old.pk
        for row in rows
        if (old := existing.get(row.run_id)) is not None and _status_key(row) != _status_key(old)
    ]
    return Abort.objects.all().latest_by_run(changed) if changed else {}


def _status_key(run: Run) -> tuple[str, bool, bool]:
    return run.status, run.concluded, run.removed_at is not None  # a removed run may reappear


def _wanting_final_detail(keys: list[int]) -> set[str]:
    if not keys:
        return set()
    # The final detail has the end of each step: wanted if a run was viewed or aborted.
    is_wanted = Q(last_viewed_at__isnull=False) | Q(aborts__gt=0)
    return set(Run.objects.filter(is_wanted, pk__in=keys).values_list("run_id", flat=True))
