"""The words in which scenarios are written: steps, the usual release flows, pipelines."""

from dataclasses import replace
from typing import NamedTuple

from .catalog import SECRET_PREFIX, Pipeline, PresetRun, ReleaseFlow, Step

MULTI_REGION_PIPELINES = frozenset({"edge-proxy", "storefront"})
"""Pipelines that go to one region after another in production."""

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
        "Message", f"tell-{channel}", (2, 4), {"kind": "SLACK", "spec": message_spec}, skip=skip
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
    """How a stage goes: its policy, seconds between two runs, and what is special."""

    stage: str
    concurrency_policy: str
    interval_seconds: float
    behaviours: str = ""
    steps: tuple[Step, ...] | None = None
    """None: what its stage usually does."""
    preset_runs: tuple[PresetRun, ...] = ()


def pipeline(project: str, slug: str, name: str, description: str, *plans: StagePlan) -> Pipeline:
    flows = {
        plan.stage: ReleaseFlow(
            *(project, slug, plan.stage, plan.concurrency_policy, plan.interval_seconds),
            plan.steps or _default_steps(plan.stage, slug),
            frozenset(plan.behaviours.split()),
            plan.preset_runs,
        )
        for plan in plans
    }
    return Pipeline(slug, name, description, slug, flows)


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
