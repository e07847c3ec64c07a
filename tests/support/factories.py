"""Mirrored rows as the sync writes them, with defaults for the fields a test does not set."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import batched, count, groupby
from operator import attrgetter
from typing import Any

import msgspec
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.db.models import Model
from django.urls import reverse
from django.utils import timezone

from dashboard.models import (
    Abort,
    CatalogSync,
    Grant,
    Lead,
    Pipeline,
    Project,
    Pruning,
    ReadRequest,
    Run,
    SearchText,
    Stage,
    StageTiming,
    Upstream,
    Work,
)
from dashboard.models.runs import ChangeCounter, mark_changed
from dashboard.northflank import Node, WorkRef
from dashboard.runs.overdue import NOT_STARTED_STATUSES
from dashboard.runs.search import store_texts
from dashboard.sync.day_sums import update
from dashboard.web.http import links

# Markup, a script, quotes, right-to-left marks, emoji, and text too long for any place.
HOSTILE = (
    '<b id="hostile">bold</b><script>alert(1)</script>"\'&amp; \u202egnp.exe 👩‍🚀' + "x" * 10_000
)

_numbers = count(1)


def project(slug: str = "shop", **fields: Any) -> Project:
    return Project.objects.get_or_create(
        slug=slug, defaults={"name": slug.title(), "synced_at": timezone.now()} | fields
    )[0]


def pipeline(slug: str = "checkout", parent: Project | None = None, **fields: Any) -> Pipeline:
    return Pipeline.objects.get_or_create(
        project=parent or project(),
        slug=slug,
        defaults={"name": slug.title(), "synced_at": timezone.now()} | fields,
    )[0]


def stage(name: str = "Production", parent: Pipeline | None = None, **fields: Any) -> Stage:
    """Return a stage that has just been read."""
    now = timezone.now()
    defaults = {
        "has_flow": True,
        "synced_at": now,
        "next_sync_at": now + timedelta(minutes=1),
        "fresh_until": now + timedelta(minutes=1),
        "next_history_page": None,
    }
    return Stage.objects.get_or_create(
        pipeline=parent or pipeline(), name=name, defaults=defaults | fields
    )[0]


def run(stage: Stage, run_id: str = "", *, status: str = "running", **fields: Any) -> Run:
    """Create a run that started a minute ago; in flight if `status` is not final."""
    now = timezone.now()
    number = next(_numbers)
    run_id = run_id or f"run-{number}"
    concluded = status in {"success", "failure", "aborted", "skipped"}
    defaults = {
        "name": f"Release {number}",
        "concluded": concluded,
        "in_flight": not concluded,
        "created_at": now - timedelta(seconds=70),
        "started_at": now - timedelta(seconds=60),
        "concluded_at": now - timedelta(seconds=5) if concluded else None,
        "first_synced_at": now,
        "synced_at": now,
        "status_since": now,
    }
    values = defaults | fields
    if status in NOT_STARTED_STATUSES:  # in front of its queue, until the check finds otherwise
        values.setdefault("turn_since", values["created_at"])
    with transaction.atomic():
        values.setdefault("version", ChangeCounter.take(1))
        return Run.objects.create(stage=stage, run_id=run_id, status=status, **values)


def search_texts() -> None:
    """Store what all runs are found by, as the mirror does with each."""
    SearchText.objects.all().delete()  # of runs that are gone, too
    for runs in batched(Run.objects.order_by("pk"), 500):
        store_texts(runs)


def day_sums() -> None:
    """Count all runs that have ended, as the mirror does with each."""
    runs = Run.objects.filter(concluded=True).order_by("stage", "created_at")
    for _stage, of_stage in groupby(runs, attrgetter("stage_id")):
        update(list(of_stage))


def create_copies(run: Run, count: int) -> None:
    """Create `count` copies of a run, each with its own id."""
    insert_copies(run, ({"run_id": f"copy-{number}"} for number in range(count)))


def insert_copies(row: Model, changes: Iterable[Mapping[str, Any]]) -> None:
    """Insert a copy of a row for each of `changes`, which are values by `attname`.

    The row may be unsaved. Thousands of instances by `bulk_create` take ten times as long.
    """
    meta = row._meta
    fields = {
        field.attname: field
        for field in meta.concrete_fields
        if not field.generated and field is not meta.auto_field
    }
    same = {
        name: field.get_db_prep_save(field.pre_save(row, add=True), connection)
        for name, field in fields.items()
    }
    rows = [
        tuple(
            fields[name].get_db_prep_save(change[name], connection) if name in change else value
            for name, value in same.items()
        )
        for change in changes
    ]
    quote = connection.ops.quote_name
    columns = ", ".join(quote(field.column) for field in fields.values())
    values = ", ".join(["%s"] * len(fields))
    with transaction.atomic(), connection.cursor() as cursor:
        table = quote(meta.db_table)
        # In parts: PostgreSQL's driver would send all rows before the server has read the first.
        for part in batched(rows, 500):
            cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", part)


def timing(stage: Stage, **fields: Any) -> StageTiming:
    """Create a baseline for a stage: runs of six to nine minutes, queued for about a minute."""
    defaults = {
        "observed_run_median": 360,
        "observed_run_p95": 540,
        "observed_queue_median": 40,
        "observed_queue_p95": 90,
    }
    return StageTiming.objects.create(stage=stage, **defaults | fields)


def change(run: Run, **fields: Any) -> None:
    """Change fields of a run, with a new version, as the mirror does."""
    with transaction.atomic():
        mark_changed([run.pk], **fields)


def abort(run: Run, user: Any, state: str = "accepted", **fields: Any) -> Abort:
    now = timezone.now()
    defaults = {"requested_at": now, "claimed_at": now, "sent_at": now, "responded_at": now}
    defaults |= {"username": user.username}
    return Abort.objects.create(run=run, user=user, state=state, **defaults | fields)


def work(run: Run, **fields: Any) -> Work:
    """Create a job run that a step of a run names, and that runs."""
    defaults: dict[str, Any] = {
        "step_key": "db",
        "kind": "job_run",
        "owner_kind": "job",
        "owner_id": "migrate",
        "work_id": "j1",
        "name": "migrate-j1",
        "status": "RUNNING",
        "concluded": False,
        "started_at": timezone.now(),
        "synced_at": timezone.now(),
    }
    return Work.objects.create(run=run, **defaults | fields)


def abort_of_new_run(
    user: User, parent: Stage | None = None, state: str = "accepted", **fields: Any
) -> Abort:
    """Create an abort of a new run; `run_*` fields and the outcome set the run's fields.

    With `work_*` fields, it is of a job run that the run has left running.
    """
    own = {"run": {"status": fields.get("outcome") or "running"}, "work": {}}
    for name in [name for name in fields if name.startswith(("run_", "work_"))]:
        prefix, _, field = name.partition("_")
        own[prefix][field] = fields.pop(name)
    aborted = run(parent or stage(), **own["run"])
    if own["work"]:
        fields["work"] = work(aborted, status=fields["outcome"], **own["work"])
    return abort(aborted, user, state, **fields)


def grant(
    action: str, group: str = "", *members: User, project: Project | None = None, stage: str = ""
) -> Grant:
    """Create a grant of a group that the `members` join; an omitted group or place means all."""
    group_row = Group.objects.get_or_create(name=group)[0] if group else None
    if group_row:
        group_row.user_set.add(*members)
    return Grant.objects.create(group=group_row, project=project, stage=stage, action=action)


def node(kind: str = "Build", **fields: Any) -> Node:
    defaults: dict[str, Any] = dict.fromkeys(Node.__dataclass_fields__) | {
        "kind": kind,
        "label": "build",
        "parallel": False,
        "skip": False,
        "steps": (),
        "argument_names": (),
    }
    return Node(**defaults | fields)


def steps_naming(*work_ids: str | None, status: str | None = None) -> Any:
    """The steps of a run, of which each names a job run of the job `migrate`; None: by no id."""
    steps = (
        node("JobRun", status=status, work=WorkRef("job_run", "job", "migrate", work_id))
        for work_id in work_ids
    )
    return msgspec.to_builtins(node("Workflow", steps=tuple(steps)))


def upstream_error(message: str, since: datetime | None = None, cause: str = "x") -> Upstream:
    """Record that Northflank does not respond, in the upstream's only row."""
    defaults = {"error": cause, "error_message": message, "error_since": since or timezone.now()}
    return Upstream.objects.update_or_create(pk=1, defaults=defaults)[0]


def catalog_list() -> None:
    """Record that the list of projects has been read."""
    CatalogSync.objects.create(next_sync_at=timezone.now(), synced_at=timezone.now())


def pruning(**fields: Any) -> Pruning:
    """Record a pass of pruning that ended just now."""
    now = timezone.now()
    defaults = {
        "finished_at": now, "run_count": 12_345, "database_bytes": 54 * 1024 * 1024,
        "oldest_run_at": now - timedelta(days=400), "deleted_runs": 1_234, "deleted_steps": 56,
    }  # fmt: skip
    return Pruning.objects.create(pk=1, **defaults | fields)


def search(run_id: str = "searched", **fields: Any) -> ReadRequest:
    """Record a search that has just begun; for all stages, unless given as `stages`."""
    keys = list(Stage.objects.order_by("pk").values_list("pk", flat=True))
    defaults = {"requested_at": timezone.now(), "stages": keys}
    kind = ReadRequest.Kind.SEARCH
    return ReadRequest.objects.create(kind=kind, run_id=run_id, **defaults | fields)


def leader(holder: str = "worker-1", **fields: Any) -> Lead:
    """Create the lead of a process that renewed it just now."""
    now = timezone.now()
    defaults = {"holder": holder, "epoch": 1, "taken_at": now, "renewed_at": now}
    return Lead.objects.create(pk=1, **defaults | fields)


def failed_catalog_list(project: Project | None, message: str = "No access.") -> CatalogSync:
    """Record that a project's pipelines can't be listed or, for None, the projects."""
    now = timezone.now()
    fields = {"error": "forbidden", "error_message": message, "error_since": now, "failures": 1}
    return CatalogSync.objects.create(project=project, next_sync_at=now, **fields)


def address(target: Run | Stage | Pipeline, page: str = "") -> str:
    """Return the path of the page of a run, stage or pipeline."""
    if isinstance(target, Pipeline):
        return reverse("pipeline", args=[target.project.slug, target.slug])
    if isinstance(target, Stage):
        return reverse("stage", args=links.stage_url_args(target))
    return reverse(page or "run", args=[*links.stage_url_args(target.stage), target.run_id])
