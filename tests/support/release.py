"""A run of about sixty steps, in progress."""

from datetime import timedelta
from itertools import count

import msgspec
from django.utils import timezone

from dashboard.models import Run, StageTiming
from dashboard.northflank import Node
from tests.support import factories

OPEN_ALL_DETAILS = "document.querySelectorAll('details').forEach(each => { each.open = true })"


REGIONS = ["europe-west", "us-east", "asia-south", "africa-north", "us-west"]


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def release(*, at_migrate: timedelta) -> Run:
    """A run of about sixty steps: five regions are done, a job has taken `at_migrate` so far."""
    now = timezone.now()
    began = now - at_migrate - minutes(20)
    clock = count()

    def did(kind: str, ref: str, *inner: Node, lasted: float = 3.0, **said: object) -> Node:
        since = inner[0].started_at if inner else began + minutes(next(clock) / 3)
        assert since
        until = max(each.ended_at for each in inner if each.ended_at) if inner else None
        return factories.node(
            kind,
            ref=ref,
            label=ref,
            steps=inner,
            **{
                "status": "success",
                "started_at": since,
                "ended_at": until or since + minutes(lasted / 3),
            }
            | said,
        )

    def region(name: str) -> Node:
        services = ("api", "worker", "web")
        ready = [did("Release", f"{name}-{each}", condition="running") for each in services]
        checks = [did("Condition", f"{name}-{each}-up", target_kind="Service") for each in services]
        return did(
            "Workflow",
            f"region-{name}",
            did("Workflow", f"{name}-release", *ready, parallel=True),
            did("LoopWorkflow", f"{name}-checks", *checks, iterations=3),
        )

    tree = factories.node(
        "Workflow",
        steps=(
            did("Build", "build", condition="success"),
            did("AddonBackup", "backup", condition="success", lasted=7),
            did("Approval", "sign-off", required_approvals=2),
            *(region(name) for name in REGIONS),
            did("Message", "tell", status="skipped", started_at=None, ended_at=None, skip=True),
            factories.node(
                "JobRun", ref="migrate", label="migrate", status="retrying", condition="success",
                started_at=now - at_migrate, attempts=2, max_attempts=3,
                next_attempt_at=now + minutes(0.7),
                error_code=1, error_message="relation “orders” is locked\n  by process 4711",
            ),
            factories.node("RunTemplate", ref="smoke-tests", label="smoke-tests"),
            factories.node(
                "Workflow", label="Workflow", parallel=True,
                steps=(
                    factories.node("Release", ref="docs", label="docs"),
                    factories.node("Teleport", ref="beam", label="beam"),
                ),
            ),
        ),
    )  # fmt: skip
    stage = factories.stage()
    StageTiming.objects.create(
        stage=stage,
        observed_steps={
            "migrate": [90, 180],
            "backup": [60, 80],
            "smoke-tests": [120, 240],
        },
    )
    return factories.run(
        stage,
        "release",
        status="retrying",
        started_at=began,
        steps=msgspec.to_builtins(tree),
        detail_synced_at=now,
    )
