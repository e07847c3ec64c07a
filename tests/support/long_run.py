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


def create_long_run(*, migrate_duration: timedelta) -> Run:
    """A run of about sixty steps: five regions are done, a job has run for `migrate_duration`."""
    now = timezone.now()
    started_at = now - migrate_duration - minutes(20)
    clock = count()

    def finished_step(
        kind: str, ref: str, *children: Node, duration: float = 3.0, **fields: object
    ) -> Node:
        start = children[0].started_at if children else started_at + minutes(next(clock) / 3)
        assert start
        end = max(child.ended_at for child in children if child.ended_at) if children else None
        return factories.node(
            kind,
            ref=ref,
            label=ref,
            steps=children,
            **{
                "status": "success",
                "started_at": start,
                "ended_at": end or start + minutes(duration / 3),
            }
            | fields,
        )

    def region(name: str) -> Node:
        services = ("api", "worker", "web")
        ready = [
            finished_step("Release", f"{name}-{service}", condition="running")
            for service in services
        ]
        checks = [
            finished_step("Condition", f"{name}-{service}-up", target_kind="Service")
            for service in services
        ]
        return finished_step(
            "Workflow",
            f"region-{name}",
            finished_step("Workflow", f"{name}-release", *ready, parallel=True),
            finished_step("LoopWorkflow", f"{name}-checks", *checks, iterations=3),
        )

    tree = factories.node(
        "Workflow",
        steps=(
            finished_step("Build", "build", condition="success"),
            finished_step("AddonBackup", "backup", condition="success", duration=7),
            finished_step("Approval", "sign-off", required_approvals=2),
            *(region(name) for name in REGIONS),
            finished_step(
                "Message", "tell", status="skipped", started_at=None, ended_at=None, skip=True
            ),
            factories.node(
                "JobRun",
                ref="migrate",
                label="migrate",
                status="retrying",
                condition="success",
                started_at=now - migrate_duration,
                attempts=2,
                max_attempts=3,
                next_attempt_at=now + minutes(0.7),
                error_code=1,
                error_message="relation “orders” is locked\n  by process 4711",
            ),
            factories.node("RunTemplate", ref="smoke-tests", label="smoke-tests"),
            factories.node(
                "Workflow",
                label="Workflow",
                parallel=True,
                steps=(
                    factories.node("Release", ref="docs", label="docs"),
                    factories.node("Teleport", ref="beam", label="beam"),
                ),
            ),
        ),
    )
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
        started_at=started_at,
        steps=msgspec.to_builtins(tree),
        detail_synced_at=now,
    )
