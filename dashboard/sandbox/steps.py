"""The steps of release flows, and the functions that `scenarios.py` builds them with."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from .secret_lines import SECRET_PREFIX

REGIONS = ["europe-west", "us-east", "asia-south"]

UNTIL_SUCCESS = {"condition": "success"}

ARGUMENTS = {"REGION": "europe-west", "JOB": "nightly-import"}
"""The arguments that are no secrets, of each run that has any."""


@dataclass(frozen=True, eq=False)
class Step:
    """One node of a release flow, as written in its definition."""

    kind: str
    ref: str
    spec: Mapping[str, Any]
    duration_range: tuple[float, float] = (0, 0)
    node_fields: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the node."""
    steps: "tuple[Step, ...]" = ()
    behaviours: frozenset[str] = frozenset()
    """What is special about its job runs:

    - `chatty`: they write to their logs while they hang; others fall silent
    - `survives-abort`: they outlive the abort of their run
    - `unnamed`: the node does not say which one it has started
    """
    workload: tuple[str, str] = ("", "")
    """What it runs, builds or deploys: `jobs` or `services`, and its id."""
    awaits: str = ""
    """The ref of the step whose job run or build this one awaits."""

    @property
    def skip(self) -> bool:
        return "skipNodeExecution" in self.node_fields


def list_leaves(steps: Sequence[Step]) -> Iterator[Step]:
    """Yield the steps without substeps that are not skipped, in order of execution."""
    for step in steps:
        if step.steps:
            yield from list_leaves(step.steps)
        elif not step.skip:
            yield step


def build(id: str, low: float = 60, high: float = 150, *, type: str = "service") -> Step:
    spec = {"id": id, "type": type, "branch": "main", "reuseExistingBuilds": True}
    workload = f"{type}s", id
    return Step("Build", f"build-{id}", spec, (low, high), UNTIL_SUCCESS, workload=workload)


def job(
    name: str, low: float = 20, high: float = 70, behaviours: str = "", *, id: str = ""
) -> Step:
    """Return a step that runs the job `id`, default: the name; behaviours by spaces."""
    job_id = id or name
    reference = "${args.JOB}" if job_id == ARGUMENTS["JOB"] else job_id
    environment = {"API_KEY": f"{SECRET_PREFIX}environment-{name}"}
    spec, workload = {"jobId": reference, "runtimeEnvironment": environment}, ("jobs", job_id)
    behaviour_set = frozenset(behaviours.split())
    return Step("JobRun", name, spec, (low, high), UNTIL_SUCCESS, (), behaviour_set, workload)


migration = partial(job, "migrate", behaviours="survives-abort")


def begin(step: Step) -> Step:
    """Return the step as one that does not wait for what it starts."""
    return replace(step, duration_range=(3, 5), node_fields={})


def wait_until_done(step: Step) -> Step:
    """Return a condition that waits for what a step has begun."""
    reference = f"${{refs.{step.ref}.id}}"
    data = {"buildId": reference}
    if step.kind == "JobRun":
        data = {"jobId": step.spec["jobId"], "runId": reference}
    spec = {"kind": step.kind, "spec": {"type": "success", "data": data}}
    return Step("Condition", f"wait-for-{step.ref}", spec, step.duration_range, awaits=step.ref)


def release(service: str, low: float = 25, high: float = 75) -> Step:
    origin = {"id": service, "branch": "main", "build": "latest"}
    spec = {"type": "build", "origin": origin, "target": {"id": service, "type": "service"}}
    node_fields = {"condition": "running", "timeoutDuration": 1800}
    workload = "services", service
    return Step("Release", f"deploy-{service}", spec, (low, high), node_fields, workload=workload)


def approval(amount: int = 1, low: float = 30, high: float = 150, *, ref: str = "sign-off") -> Step:
    return Step("Approval", ref, {"amount": amount}, (low, high))


def backup(addon: str, low: float = 30, high: float = 80) -> Step:
    spec = {"addonId": addon, "backupType": "dump", "compressionType": "zstd"}
    return Step("AddonBackup", f"backup-{addon}", spec, (low, high), UNTIL_SUCCESS)


def wait_until_healthy(service: str, low: float = 15, high: float = 45) -> Step:
    data = {"serviceId": service, "timeoutDuration": 900}
    spec = {"kind": "Service", "spec": {"type": "running", "data": data}}
    return Step("Condition", f"wait-for-{service}", spec, (low, high))


def restart(service: str) -> Step:
    spec = {"kind": "Service", "spec": {"type": "restart", "data": {"serviceId": service}}}
    return Step("Action", f"restart-{service}", spec, (10, 30))


def message(channel: str) -> Step:
    url = f"https://hooks.slack.example/services/T000/B000/{SECRET_PREFIX}webhook-{channel}"
    spec = {"kind": "SLACK", "spec": {"webhookUrl": url, "message": "Released ${refs.build.sha}"}}
    return Step("Message", f"notify-{channel}", spec, (2, 4))


def template(name: str, low: float = 30, high: float = 90) -> Step:
    arguments = {"variables": [{"key": "API_KEY", "value": f"{SECRET_PREFIX}template-{name}"}]}
    spec = {"templateType": "template", "templateId": name, "arguments": arguments}
    return Step("RunTemplate", name, spec, (low, high), UNTIL_SUCCESS)


def parallel(*steps: Step, ref: str = "") -> Step:
    return Step("Workflow", ref, {"type": "parallel"}, steps=steps)


def sequence(ref: str, *steps: Step) -> Step:
    return Step("Workflow", ref, {"type": "sequential"}, steps=steps)


def loop(ref: str, iterations: list[str], *steps: Step) -> Step:
    return Step("LoopWorkflow", ref, {"iterations": iterations}, steps=steps)


def skipped(step: Step) -> Step:
    return replace(step, node_fields={**step.node_fields, "skipNodeExecution": "true"})


# --- the steps of a flow -----------------------------------------------------------------------


def development(service: str) -> tuple[Step, ...]:
    return build(service), release(service), message("dev-releases")


def staging(service: str) -> tuple[Step, ...]:
    builds = parallel(build(service), build(f"{service}-worker"))
    return builds, migration(), release(service), template("smoke-tests")


def production(service: str) -> tuple[Step, ...]:
    return (
        backup(f"{service}-db"),
        approval(),
        migration(),
        parallel(release(service), release(f"{service}-worker")),
        wait_until_healthy(service),
        message("releases"),
    )


def multi_region(service: str) -> tuple[Step, ...]:
    """Return the steps of a flow that releases to one region after another."""
    return (
        build(service),
        approval(2),
        loop("each-region", REGIONS[:2], release(service), wait_until_healthy(service)),
        restart(service),
        skipped(message("edge")),
    )


def release_train() -> tuple[Step, ...]:
    """Return the steps of a flow of about sixty nested ones, of every kind."""
    builds = map(build, ("cart", "catalog", "invoices", "sessions"))
    return (
        sequence(
            "prepare",
            parallel(*builds, skipped(build("legacy-shop")), ref="builds"),
            parallel(backup("cart-db"), backup("invoices-db"), ref="backups"),
        ),
        approval(2, ref="release-board"),
        template("rehearsal"),
        sequence(
            "databases",
            *(job("migrate-cart"), job("migrate-invoices"), skipped(job("rebuild-indexes"))),
            wait_until_healthy("cart-db"),
        ),
        parallel(*map(_release_service, ("cart", "catalog", "invoices")), ref="services"),
        loop("each-region", REGIONS, *map(_release_region, REGIONS)),
        sequence("afterwards", job("reconcile"), restart("reports"), wait_until_healthy("reports")),
        message("releases"),
        skipped(message("customers")),
    )


def _release_service(name: str) -> Step:
    releases = release(name), release(f"{name}-worker")
    return sequence(name, *releases, wait_until_healthy(name), job(f"warm-{name}"))


def _release_region(name: str) -> Step:
    checks = job(f"purge-{name}"), template(f"probe-{name}"), approval(ref=f"open-{name}")
    verify = parallel(*checks, ref=f"verify-{name}")
    return sequence(name, release(f"edge-{name}"), verify, wait_until_healthy(f"edge-{name}"))
