"""The sandbox's catalog: projects, pipelines, each stage's release flow, and its steps.

Dataclasses, and the functions that `scenarios.py` builds them with. Runs are derived from them in
`simulation.py` and `history.py`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

STAGES = ("Development", "Staging", "Production")

TEAM_ID = "acme"
TEAM_NAME = "Acme"

SECRET_PREFIX = "s3cr3t-"
"""Prefix of every fake secret in the sandbox, so that tests can search for leaks."""


MULTI_REGION_PIPELINES = frozenset({"edge-proxy", "storefront"})
"""Pipelines that release to one region after another in production."""
REGIONS = ["europe-west", "us-east", "asia-south"]


@dataclass(frozen=True, eq=False)
class Step:
    """One node of a release flow, as written in its definition."""

    kind: str
    ref: str = ""
    duration_range: tuple[float, float] = (0, 0)
    spec: Mapping[str, Any] = field(default_factory=dict)
    condition: str = ""
    timeout_seconds: int = 0
    skip: bool = False
    parallel: bool = False
    steps: "tuple[Step, ...]" = ()


@dataclass(frozen=True)
class PresetStep:
    """The simulated course of one step of a preset run."""

    ref: str
    duration_seconds: float = math.inf
    """Of the step, or of its last attempt; infinite: until the run is aborted."""
    attempts: int = 1
    """All but the last fail.

    If the duration is infinite and there are several, the last one fails too, and the next is
    postponed minute by minute.
    """


@dataclass(frozen=True)
class PresetRun:
    """A run that a scenario defines; all others are scheduled, or started by hand.

    Nothing happens to it beyond these fields.
    """

    name: str
    elapsed_seconds: float
    """Seconds from the start of its first step in `steps`, or its creation, to the opening."""
    steps: tuple[PresetStep, ...] = ()
    abort_elapsed_seconds: float | None = None
    """Seconds from a colleague's abort, which never takes effect, to the opening."""


@dataclass(frozen=True, eq=False)
class ReleaseFlow:
    """The release flow of one stage."""

    project: str
    pipeline: str
    stage: str
    concurrency_policy: str
    interval_seconds: float
    """Average seconds between two scheduled runs."""
    steps: tuple[Step, ...]
    behaviours: frozenset[str] = frozenset()
    """What is special:

    - `always-succeeds`: every run succeeds, at the first attempt
    - `idle`: the last run ended two hours before the scenario opened; no other follows
    - `short-history`: the list of runs reaches back twelve hours only
    - `stuck`: at any time a run that hangs for hours
    - `daily-jam`: once a day, first when the scenario opens, a run that hangs for hours, and others
      that queue behind it
    - `hangs`: now and then a run hangs
    - `slow-aborts`: aborts take minutes or come too late
    - `ignores-aborts`: despite an abort the run ends in success, seconds later
    - `hostile-names`: names with markup, emoji, right-to-left and very long text
    - `holds-secrets`: arguments, triggers and refs hold (fake) secrets
    - `paused`: its triggers are paused
    """
    preset_runs: tuple[PresetRun, ...] = ()
    """Oldest first."""

    @cached_property
    def key(self) -> str:
        return f"{self.project}/{self.pipeline}/{self.stage.lower()}"

    @cached_property
    def leaves(self) -> tuple[Step, ...]:
        """The steps without substeps that are not skipped, in order of execution."""
        return tuple(_leaves(self.steps))


@dataclass(frozen=True, eq=False)
class Pipeline:
    id: str
    name: str
    description: str
    service: str
    flows: Mapping[str, ReleaseFlow]
    """By stage name; a stage without a release flow is absent."""


@dataclass(frozen=True, eq=False)
class Project:
    id: str
    name: str
    description: str
    pipelines: tuple[Pipeline, ...]


def _leaves(steps: tuple[Step, ...]) -> list[Step]:
    leaves: list[Step] = []
    for step in steps:
        if step.steps:
            leaves += _leaves(step.steps)
        elif not step.skip:
            leaves.append(step)
    return leaves


# --- steps -----------------------------------------------------------------------------------


def build(service: str, low: float = 60, high: float = 150) -> Step:
    spec = {"id": service, "type": "service", "branch": "main", "reuseExistingBuilds": True}
    return Step("Build", f"build-{service}", (low, high), spec, condition="success")


def job(name: str, low: float = 20, high: float = 70) -> Step:
    return Step("JobRun", name, (low, high), {"jobId": name}, condition="success")


def release(service: str, low: float = 25, high: float = 75) -> Step:
    spec = {
        "type": "build",
        "origin": {"id": service, "branch": "main", "build": "latest"},
        "target": {"id": service, "type": "service"},
    }
    return Step("Release", f"deploy-{service}", (low, high), spec, "running", timeout_seconds=1800)


def approval(amount: int = 1, low: float = 30, high: float = 150, *, ref: str = "sign-off") -> Step:
    return Step("Approval", ref, (low, high), {"amount": amount})


def backup(addon: str, low: float = 30, high: float = 80) -> Step:
    spec = {"addonId": addon, "backupType": "dump", "compressionType": "zstd"}
    return Step("AddonBackup", f"backup-{addon}", (low, high), spec, condition="success")


def wait_until_healthy(service: str, low: float = 15, high: float = 45) -> Step:
    data = {"serviceId": service, "timeoutDuration": 900}
    spec = {"kind": "Service", "spec": {"type": "running", "data": data}}
    return Step("Condition", f"wait-for-{service}", (low, high), spec)


def restart(service: str) -> Step:
    data = {"serviceId": service}
    spec = {"kind": "Service", "spec": {"type": "restart", "data": data}}
    return Step("Action", f"restart-{service}", (10, 30), spec)


def message(channel: str, *, skip: bool = False) -> Step:
    url = f"https://hooks.slack.example/services/T000/B000/{SECRET_PREFIX}webhook-{channel}"
    message_spec = {"webhookUrl": url, "message": "Released ${refs.build.sha}"}
    return Step(
        "Message", f"notify-{channel}", (2, 4), {"kind": "SLACK", "spec": message_spec}, skip=skip
    )


def template(name: str, low: float = 30, high: float = 90) -> Step:
    spec = {
        "templateType": "template",
        "templateId": name,
        "arguments": {
            "variables": [{"key": "API_KEY", "value": f"{SECRET_PREFIX}template-{name}"}]
        },
    }
    return Step("RunTemplate", name, (low, high), spec, condition="success")


def parallel(*steps: Step, ref: str = "") -> Step:
    return Step("Workflow", ref, spec={"type": "parallel"}, parallel=True, steps=steps)


def sequence(ref: str, *steps: Step) -> Step:
    return Step("Workflow", ref, spec={"type": "sequential"}, steps=steps)


def loop(ref: str, iterations: list[str], *steps: Step) -> Step:
    return Step("LoopWorkflow", ref, spec={"iterations": iterations}, steps=steps)


def skipped(step: Step) -> Step:
    return replace(step, skip=True)


# --- flows -----------------------------------------------------------------------------------


def development_steps(service: str) -> tuple[Step, ...]:
    return build(service), release(service), message("dev-releases")


def staging_steps(service: str) -> tuple[Step, ...]:
    return (
        parallel(build(service), build(f"{service}-worker")),
        job("migrate"),
        release(service),
        template("smoke-tests"),
    )


def production_steps(service: str, addon: str) -> tuple[Step, ...]:
    return (
        backup(addon),
        approval(),
        job("migrate"),
        parallel(release(service), release(f"{service}-worker")),
        wait_until_healthy(service),
        message("releases"),
    )


def multi_region_steps(service: str) -> tuple[Step, ...]:
    return (
        build(service),
        approval(2),
        loop(
            "each-region", ["europe-west", "us-east"], release(service), wait_until_healthy(service)
        ),
        restart(service),
        message("edge", skip=True),
    )


class StagePlan(NamedTuple):
    """A stage's policy, seconds between two runs, and behaviours (separated by spaces)."""

    stage: str
    concurrency_policy: str
    interval_seconds: float
    behaviours: str = ""
    steps: tuple[Step, ...] | None = None
    """None: the stage's default steps."""
    preset_runs: tuple[PresetRun, ...] = ()


type PipelineBuilder = Callable[[str], Pipeline]
"""Builds a pipeline from its project's id."""


def pipeline(slug: str, name: str, description: str, *plans: StagePlan) -> PipelineBuilder:
    def build_pipeline(project_id: str) -> Pipeline:
        flows = {
            plan.stage: ReleaseFlow(
                *(project_id, slug, plan.stage, plan.concurrency_policy, plan.interval_seconds),
                plan.steps or _default_steps(plan.stage, slug),
                frozenset(plan.behaviours.split()),
                plan.preset_runs,
            )
            for plan in plans
        }
        return Pipeline(slug, name, description, slug, flows)

    return build_pipeline


def project(id: str, name: str, description: str, *pipelines: PipelineBuilder) -> Project:
    return Project(id, name, description, tuple(make(id) for make in pipelines))


def _default_steps(stage: str, slug: str) -> tuple[Step, ...]:
    if stage == "Development":
        return development_steps(slug)
    if stage == "Staging":
        return staging_steps(slug)
    return (
        multi_region_steps(slug)
        if slug in MULTI_REGION_PIPELINES
        else production_steps(slug, f"{slug}-db")
    )


def release_train_steps() -> tuple[Step, ...]:
    """Return a flow of about sixty nested steps, of every kind."""
    return (
        sequence(
            "prepare",
            parallel(
                *(build("cart"), build("catalog"), build("invoices"), build("sessions")),
                skipped(build("legacy-shop")),
                ref="builds",
            ),
            parallel(backup("cart-db"), backup("invoices-db"), ref="backups"),
        ),
        approval(2, ref="release-board"),
        template("rehearsal"),
        sequence(
            "databases",
            *(job("migrate-cart"), job("migrate-invoices")),
            skipped(job("rebuild-indexes")),
            wait_until_healthy("cart-db"),
        ),
        parallel(
            _service_steps("cart"),
            _service_steps("catalog"),
            _service_steps("invoices"),
            ref="services",
        ),
        loop("each-region", REGIONS, *map(_region_steps, REGIONS)),
        sequence("afterwards", job("reconcile"), restart("reports"), wait_until_healthy("reports")),
        message("releases"),
        message("customers", skip=True),
    )


def _service_steps(name: str) -> Step:
    return sequence(
        name,
        release(name),
        release(f"{name}-worker"),
        wait_until_healthy(name),
        job(f"warm-{name}"),
    )


def _region_steps(name: str) -> Step:
    return sequence(
        name,
        release(f"edge-{name}"),
        parallel(
            job(f"purge-{name}"),
            template(f"probe-{name}"),
            approval(ref=f"open-{name}"),
            ref=f"verify-{name}",
        ),
        wait_until_healthy(f"edge-{name}"),
    )
