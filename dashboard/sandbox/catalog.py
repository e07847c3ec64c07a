"""What exists in the sandbox: projects, pipelines, and the release flow of each stage.

Plain data. The lives of runs are derived from it in `life.py` and `history.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

STAGES = ("Development", "Staging", "Production")

TEAM_ID = "acme"
TEAM_NAME = "Acme"

SECRET = "s3cr3t-"
"""Starts every fake secret in the sandbox, so that a leak can be searched for."""


@dataclass(frozen=True, eq=False)
class Step:
    """One node of a release flow, as written in its definition."""

    kind: str
    ref: str = ""
    seconds: tuple[float, float] = (0, 0)
    spec: Mapping[str, Any] = field(default_factory=dict)
    condition: str = ""
    timeout: int = 0
    skip: bool = False
    parallel: bool = False
    steps: "tuple[Step, ...]" = ()


@dataclass(frozen=True, eq=False)
class Flow:
    """The release flow of one stage."""

    project: str
    pipeline: str
    stage: str
    policy: str
    every: float
    """Average seconds between two scheduled runs."""
    steps: tuple[Step, ...]
    quirks: frozenset[str] = frozenset()
    """What is special about its runs:

    - `stuck`: a run that hangs for hours, at any time
    - `jam`: a run that hangs for hours, and others that queue behind it
    - `hangs`: now and then a run hangs
    - `stubborn`: aborts take minutes or come too late
    - `hostile`: names with markup, emoji, right-to-left and very long text
    - `secrets`: arguments, triggers and refs hold (fake) secrets
    - `paused`: its triggers are paused
    """

    @cached_property
    def key(self) -> str:
        return f"{self.project}/{self.pipeline}/{self.stage.lower()}"

    @cached_property
    def leaves(self) -> tuple[Step, ...]:
        """The steps that do something, in the order in which they are played."""
        return tuple(_leaves(self.steps))


@dataclass(frozen=True, eq=False)
class Pipeline:
    id: str
    name: str
    description: str
    service: str
    flows: Mapping[str, Flow]
    """By stage name; a stage without a release flow is absent."""


@dataclass(frozen=True, eq=False)
class Project:
    id: str
    name: str
    description: str
    pipelines: tuple[Pipeline, ...]


def _leaves(steps: tuple[Step, ...]) -> list[Step]:
    found: list[Step] = []
    for step in steps:
        if step.steps:
            found += _leaves(step.steps)
        elif not step.skip:
            found.append(step)
    return found


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


def approval(amount: int = 1, low: float = 30, high: float = 150) -> Step:
    return Step("Approval", "sign-off", (low, high), {"amount": amount})


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


def parallel(*steps: Step) -> Step:
    return Step("Workflow", spec={"type": "parallel"}, parallel=True, steps=steps)


def loop(ref: str, iterations: list[str], *steps: Step) -> Step:
    return Step("LoopWorkflow", ref, spec={"iterations": iterations}, steps=steps)


# --- flows -----------------------------------------------------------------------------------


def _development(service: str) -> tuple[Step, ...]:
    return build(service), release(service), message("dev-releases")


def _staging(service: str) -> tuple[Step, ...]:
    return (
        parallel(build(service), build(f"{service}-worker")),
        job("migrate"),
        release(service),
        template("smoke-tests"),
    )


def _production(service: str, addon: str) -> tuple[Step, ...]:
    return (
        backup(addon),
        approval(),
        job("migrate"),
        parallel(release(service), release(f"{service}-worker")),
        healthy(service),
        message("releases"),
    )


def _regions(service: str) -> tuple[Step, ...]:
    return (
        build(service),
        approval(2),
        loop("each-region", ["europe-west", "us-east"], release(service), healthy(service)),
        restart(service),
        message("edge", skip=True),
    )


def _pipeline(
    project: str, slug: str, name: str, about: str, *flows: tuple[str, str, float, str]
) -> Pipeline:
    """Build a pipeline; each flow is (stage, policy, seconds between runs, quirks)."""
    made: dict[str, Flow] = {}
    for stage, policy, every, quirks in flows:
        steps = {
            "Development": _development(slug),
            "Staging": _staging(slug),
            "Production": _regions(slug)
            if slug in {"edge-proxy", "storefront"}
            else _production(slug, f"{slug}-db"),
        }[stage]
        made[stage] = Flow(project, slug, stage, policy, every, steps, frozenset(quirks.split()))
    return Pipeline(slug, name, about, slug, made)


def everyday() -> tuple[Project, ...]:
    """The usual scenario: a busy team, with the odd run that is stuck."""
    dev, staging, production = STAGES
    return (
        Project(
            "shop",
            "Shop",
            "Everything a customer sees",
            (
                _pipeline(
                    *("shop", "checkout", "Checkout", "Basket to receipt"),
                    (dev, "allow", 360, ""),
                    (staging, "queue", 660, "hangs"),
                    (production, "queue", 900, "jam secrets"),
                ),
                _pipeline(
                    *("shop", "storefront", "Storefront", "The public site"),
                    (dev, "latest", 300, ""),
                    (staging, "allow", 480, "hostile"),
                    (production, "forbid", 900, ""),
                ),
                _pipeline(
                    *("shop", "search", "Search", "Product search and facets"),
                    (dev, "allow", 400, ""),
                    (production, "allow", 1100, "stubborn"),
                ),
            ),
        ),
        Project(
            "payments",
            "Payments",
            "Money in, money out",
            (
                _pipeline(
                    *("payments", "billing-api", "Billing API", "Invoices and refunds"),
                    (dev, "allow", 450, "secrets"),
                    (staging, "forbid", 600, "secrets"),
                    (production, "queue", 1100, "secrets"),
                ),
                _pipeline(
                    *("payments", "ledger", "Ledger", "Double-entry bookkeeping"),
                    (staging, "allow", 600, ""),
                    (production, "allow", 1400, "stuck"),
                ),
            ),
        ),
        Project(
            "identity",
            "Identity",
            "Sign-in for people and machines",
            (
                _pipeline(
                    *("identity", "auth-gateway", "Auth gateway", ""),
                    (dev, "allow", 480, "hangs"),
                    (production, "queue", 1200, "paused"),
                ),
            ),
        ),
        Project(
            "data-platform",
            "Data platform 📈",
            'Ingest & reports, "nightly" <b>and</b> live',
            (
                _pipeline(
                    *("data-platform", "ingest", "Ingest", "Events to tables"),
                    (dev, "allow", 480, ""),
                    (staging, "queue", 800, "hangs"),
                    (production, "latest", 1000, "hangs"),
                ),
                _pipeline(*("data-platform", "reports", "Reports", "Has no release flow yet")),
            ),
        ),
        Project(
            "platform-tools",
            "Platform tools",
            "Shared by every team",
            (
                _pipeline(
                    *("platform-tools", "edge-proxy", "Edge proxy", "TLS and routing"),
                    (staging, "allow", 800, ""),
                    (production, "queue", 1000, ""),
                ),
            ),
        ),
        Project("skunkworks", "Skunkworks", "Nothing here yet", ()),
    )


SCENARIOS = {"everyday": everyday}
