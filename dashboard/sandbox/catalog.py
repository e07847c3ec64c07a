"""The sandbox's catalog: projects, pipelines, and each stage's release flow."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from . import steps as flow_steps
from .steps import Step

STAGES = ("Development", "Staging", "Production")

MULTI_REGION_PIPELINES = frozenset({"edge-proxy", "storefront"})


class Team(NamedTuple):
    id: str
    name: str


TEAM = Team("acme", "Acme")


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


@dataclass(eq=False)
class ReleaseFlow:
    """The release flow of one stage."""

    concurrency_policy: str
    interval_seconds: float
    """Average seconds between two scheduled runs."""
    behaviours: frozenset[str]
    """What is special:

    - `always-succeeds`: every run succeeds, at the first attempt
    - `idle`: the last run ended two hours before the scenario opened; no other follows
    - `stuck`: at any time a run that hangs for hours
    - `daily-jam`: once a day, first when the scenario opens, a run that hangs for hours, and others
      that queue behind it
    - `hangs`: now and then a run hangs
    - `breaks`: for hours of each day, as when the scenario opens, every run fails by one cause
    - `slow-aborts`: aborts take minutes or come too late
    - `ignores-aborts`: despite an abort the run ends in success, seconds later
    - `holds-secrets`: arguments, triggers and refs hold (fake) secrets
    - `paused`: its triggers are paused
    """
    steps: tuple[Step, ...]
    preset_runs: tuple[PresetRun, ...]
    """Oldest first."""
    stage: str = ""
    pipeline: str = ""
    project: str = ""

    @cached_property
    def key(self) -> str:
        return f"{self.project}/{self.pipeline}/{self.stage.lower()}"

    @cached_property
    def leaves(self) -> tuple[Step, ...]:
        return tuple(flow_steps.list_leaves(self.steps))


@dataclass(eq=False)
class Pipeline:
    id: str
    name: str
    description: str
    flows: Mapping[str, ReleaseFlow]
    """By stage name; a stage without a release flow is absent."""


@dataclass(eq=False)
class Project:
    id: str
    name: str
    description: str
    pipelines: tuple[Pipeline, ...]


def list_flows(projects: Iterable[Project]) -> Iterator[ReleaseFlow]:
    for project in projects:
        for pipeline in project.pipelines:
            yield from pipeline.flows.values()


# --- for `scenarios.py` ------------------------------------------------------------------------


def flow(plan: str, *preset_runs: PresetRun, steps: tuple[Step, ...] = ()) -> ReleaseFlow:
    """Return the flow of a plan: policy, average seconds between two scheduled runs, behaviours.

    Without `steps` it gets those of its stage.
    """
    policy, interval_seconds, *behaviours = plan.split()
    return ReleaseFlow(policy, float(interval_seconds), frozenset(behaviours), steps, preset_runs)


def pipeline(id: str, name: str, description: str, *plans: str | ReleaseFlow) -> Pipeline:
    """Return a pipeline with the flows of its stages, or their plans; "": no flow."""
    flows = {}
    for stage, plan in zip(STAGES, plans, strict=False):
        if plan:
            own = flow(plan) if isinstance(plan, str) else plan
            own.stage, own.pipeline = stage, id
            own.steps = own.steps or _default_steps(stage, id)
            flows[stage] = own
    return Pipeline(id, name, description, flows)


def project(id: str, name: str, description: str, *pipelines: Pipeline) -> Project:
    result = Project(id, name, description, pipelines)
    for own in list_flows([result]):
        own.project = id
    return result


def _default_steps(stage: str, pipeline: str) -> tuple[Step, ...]:
    if stage == "Production" and pipeline in MULTI_REGION_PIPELINES:
        return flow_steps.multi_region(pipeline)
    defaults = (flow_steps.development, flow_steps.staging, flow_steps.production)
    return defaults[STAGES.index(stage)](pipeline)
