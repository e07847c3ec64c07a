"""Mirrored rows as the sync writes them, with defaults for the fields a test does not set."""

from datetime import datetime, timedelta
from itertools import count
from typing import Any

from django.contrib.auth.models import Group, User
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from dashboard.models import (
    Abort,
    CatalogSync,
    Grant,
    Pipeline,
    Project,
    Run,
    RunLookup,
    Stage,
    StageTiming,
    Upstream,
    Worker,
)
from dashboard.models.runs import ChangeCounter, mark_changed
from dashboard.northflank import Node
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


def pipeline(slug: str = "checkout", of: Project | None = None, **fields: Any) -> Pipeline:
    return Pipeline.objects.get_or_create(
        project=of or project(),
        slug=slug,
        defaults={"name": slug.title(), "synced_at": timezone.now()} | fields,
    )[0]


def stage(name: str = "Production", of: Pipeline | None = None, **fields: Any) -> Stage:
    """Return a stage that has just been read."""
    now = timezone.now()
    usual = {
        "confirmed_path_segment": name.lower(),
        "has_flow": True,
        "synced_at": now,
        "next_sync_at": now + timedelta(minutes=1),
        "fresh_until": now + timedelta(minutes=1),
        "next_history_page": None,
    }
    return Stage.objects.get_or_create(
        pipeline=of or pipeline(), name=name, defaults=usual | fields
    )[0]


def run(of: Stage, run_id: str = "", *, status: str = "running", **fields: Any) -> Run:
    """Create a run that started a minute ago; in flight if `status` is not final."""
    now = timezone.now()
    number = next(_numbers)
    run_id = run_id or f"run-{number}"
    concluded = status in {"success", "failure", "aborted", "skipped"}
    usual = {
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
    with transaction.atomic():
        usual["version"] = ChangeCounter.reserve(1)
        return Run.objects.create(stage=of, run_id=run_id, status=status, **usual | fields)


def create_copies(of: Run, count: int) -> None:
    """Create `count` copies of a run, each with its own id."""
    fields = {field.attname: getattr(of, field.attname) for field in of._meta.concrete_fields}
    Run.objects.bulk_create(
        Run(**fields | {"id": None, "run_id": f"copy-{number}"}) for number in range(count)
    )


def timing(of: Stage, **fields: Any) -> StageTiming:
    """Create a baseline for a stage: runs of six to nine minutes, queued for about a minute."""
    usual = {
        "observed_run_median": 360,
        "observed_run_p95": 540,
        "observed_queue_median": 40,
        "observed_queue_p95": 90,
    }
    return StageTiming.objects.create(stage=of, **usual | fields)


def change(of: Run, **fields: Any) -> None:
    """Change fields of a run, with a new version, as the mirror does."""
    with transaction.atomic():
        mark_changed([of.pk], **fields)


def abort(of: Run, by: Any, state: str = "accepted", **fields: Any) -> Abort:
    now = timezone.now()
    usual = {"requested_at": now, "claimed_at": now, "sent_at": now, "answered_at": now}
    usual |= {"username": by.username}
    return Abort.objects.create(run=of, user=by, state=state, **usual | fields)


def act(by: User, of: Stage | None = None, state: str = "accepted", **fields: Any) -> Abort:
    """Create an abort of a new run; `run_*` fields and the outcome set the run's fields."""
    own = [name for name in fields if name.startswith("run_")]
    left = {"status": fields.get("outcome") or "running"}
    left |= {name.removeprefix("run_"): fields.pop(name) for name in own}
    return abort(run(of or stage(), **left), by, state, **fields)


def grant(
    right: str, group: str = "", *to: User, project: Project | None = None, stage: str = ""
) -> Grant:
    """Create a grant of a group that the users `to` join; an omitted group or place means all."""
    of = Group.objects.get_or_create(name=group)[0] if group else None
    if of:
        of.user_set.add(*to)
    return Grant.objects.create(group=of, project=project, stage=stage, action=right)


def node(kind: str = "Build", **fields: Any) -> Node:
    said: dict[str, Any] = dict.fromkeys(Node.__dataclass_fields__) | {
        "kind": kind,
        "label": "build",
        "parallel": False,
        "skip": False,
        "steps": (),
    }
    return Node(**said | fields)


def trouble(message: str, since: datetime | None = None, cause: str = "x") -> Upstream:
    """Record that Northflank does not respond, in the upstream's only row."""
    said = {"error": cause, "error_message": message, "error_since": since or timezone.now()}
    return Upstream.objects.update_or_create(pk=1, defaults=said)[0]


def catalog_sweep() -> None:
    """Record that the list of projects has been read."""
    CatalogSync.objects.create(next_sync_at=timezone.now(), synced_at=timezone.now())


def search_lookup(requests: int, *, of: Stage | None = None, **fields: Any) -> RunLookup:
    """Record a run lookup of a search that has just used this many requests, in one stage."""
    now = timezone.now()
    usual = {"run_id": "searched", "requested_at": now, "answered_at": now, "from_search": True}
    return RunLookup.objects.create(stage=of or stage(), request_count=requests, **usual | fields)


def worker(name: str = "worker-1", **fields: Any) -> Worker:
    """Create a worker with a heartbeat just now."""
    now = timezone.now()
    return Worker.objects.create(name=name, **{"started_at": now, "heartbeat_at": now} | fields)


def failed_catalog_sweep(of: Project | None, message: str = "No access.") -> CatalogSync:
    """Record that a project's pipelines can't be listed or, for None, the projects."""
    now = timezone.now()
    said = {"error": "forbidden", "error_message": message, "error_since": now, "failures": 1}
    return CatalogSync.objects.create(project=of, next_sync_at=now, **said)


def address(of: Run | Stage | Pipeline, page: str = "") -> str:
    """Return the path of the page of a run, stage or pipeline."""
    if isinstance(of, Pipeline):
        return reverse("pipeline", args=[of.project.slug, of.slug])
    if isinstance(of, Stage):
        return reverse("stage", args=links.stage_url_args(of))
    return reverse(page or "run", args=[*links.stage_url_args(of.stage), of.run_id])
