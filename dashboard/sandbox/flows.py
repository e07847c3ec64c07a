"""The words in which scenarios are written: steps, the usual release flows, pipelines."""

from dataclasses import replace
from typing import NamedTuple

from .catalog import SECRET, Flow, Pipeline, Staged, Step

EVERYWHERE = frozenset({"edge-proxy", "storefront"})
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
    return Step("Release", f"deploy-{service}", (low, high), spec, "running", timeout=1800)


def approval(amount: int = 1, low: float = 30, high: float = 150, *, ref: str = "sign-off") -> Step:
    return Step("Approval", ref, (low, high), {"amount": amount})


def backup(addon: str, low: float = 30, high: float = 80) -> Step:
    spec = {"addonId": addon, "backupType": "dump", "compressionType": "zstd"}
    return Step("AddonBackup", f"backup-{addon}", (low, high), spec, condition="success")


def healthy(service: str, low: float = 15, high: float = 45) -> Step:
    data = {"serviceId": service, "timeoutDuration": 900}
    spec = {"kind": "Service", "spec": {"type": "running", "data": data}}
    return Step("Condition", f"wait-for-{service}", (low, high), spec)


def restart(service: str) -> Step:
    data = {"serviceId": service}
    spec = {"kind": "Service", "spec": {"type": "restart", "data": data}}
    return Step("Action", f"restart-{service}", (10, 30), spec)


def message(channel: str, *, skip: bool = False) -> Step:
    url = f"https://hooks.slack.example/services/T000/B000/{SECRET}webhook-{channel}"
    inner = {"webhookUrl": url, "message": "Released ${refs.build.sha}"}
    return Step("Message", f"tell-{channel}", (2, 4), {"kind": "SLACK", "spec": inner}, skip=skip)


def template(name: str, low: float = 30, high: float = 90) -> Step:
    spec = {
        "templateType": "template",
        "templateId": name,
        "arguments": {"variables": [{"key": "API_KEY", "value": f"{SECRET}template-{name}"}]},
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


def development(service: str) -> tuple[Step, ...]:
    return build(service), release(service), message("dev-releases")


def staging(service: str) -> tuple[Step, ...]:
    return (
        parallel(build(service), build(f"{service}-worker")),
        job("migrate"),
        release(service),
        template("smoke-tests"),
    )


def production(service: str, addon: str) -> tuple[Step, ...]:
    return (
        backup(addon),
        approval(),
        job("migrate"),
        parallel(release(service), release(f"{service}-worker")),
        healthy(service),
        message("releases"),
    )


def regions(service: str) -> tuple[Step, ...]:
    return (
        build(service),
        approval(2),
        loop("each-region", ["europe-west", "us-east"], release(service), healthy(service)),
        restart(service),
        message("edge", skip=True),
    )


class Plan(NamedTuple):
    """How a stage goes: its policy, seconds between two runs, and what is special."""

    stage: str
    policy: str
    every: float
    quirks: str = ""
    steps: tuple[Step, ...] | None = None
    """None: what its stage usually does."""
    staged: tuple[Staged, ...] = ()


def pipeline(project: str, slug: str, name: str, about: str, *plans: Plan) -> Pipeline:
    flows = {
        plan.stage: Flow(
            *(project, slug, plan.stage, plan.policy, plan.every),
            plan.steps or _usual(plan.stage, slug),
            frozenset(plan.quirks.split()),
            plan.staged,
        )
        for plan in plans
    }
    return Pipeline(slug, name, about, slug, flows)


def _usual(stage: str, slug: str) -> tuple[Step, ...]:
    if stage == "Development":
        return development(slug)
    if stage == "Staging":
        return staging(slug)
    return regions(slug) if slug in EVERYWHERE else production(slug, f"{slug}-db")
