"""What can exist in the sandbox: projects, pipelines, and the release flow of each stage.

Plain data, written down in `scenarios.py`. The lives of runs are derived from it in `life.py` and
`history.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

STAGES = ("Development", "Staging", "Production")

TEAM_ID = "acme"
TEAM_NAME = "Acme"

SECRET_PREFIX = "s3cr3t-"
"""Starts every fake secret in the sandbox, so that a leak can be searched for."""


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
    """What a step of a staged run has to go through."""

    ref: str
    duration_seconds: float = math.inf
    """How long the step takes, or its last attempt; without end, unless somebody aborts the run."""
    attempts: int = 1
    """All but the last fail. Where the step has no end and more than one attempt, the last fails
    too, and the next is put off, minute by minute."""


@dataclass(frozen=True)
class PresetRun:
    """A run that a scenario has put in its place; all other runs are scheduled, or started by hand.

    What befalls it is written here, and nothing else does.
    """

    name: str
    elapsed_seconds: float
    """Seconds for which, when the scenario opens, the step of its first trouble has been going on.

    Without trouble: for which the run has been there.
    """
    steps: tuple[PresetStep, ...] = ()
    abort_elapsed_seconds: float | None = None
    """Seconds for which, when the scenario opens, a colleague's abort has been going on: it goes on
    for good."""


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
    """What is special about its runs:

    - `always-succeeds`: every run succeeds, at the first attempt
    - `idle`: the last run ended two hours before the scenario opened, and no other comes
    - `short-history`: the list of runs reaches back twelve hours only
    - `stuck`: a run that hangs for hours, at any time
    - `daily-jam`: once a day, first when the scenario opens, a run that hangs for hours, and others
      that queue behind it
    - `hangs`: now and then a run hangs
    - `slow-aborts`: aborts take minutes or come too late
    - `ignores-aborts`: an abort changes nothing: seconds later the run ends in success
    - `hostile-names`: names with markup, emoji, right-to-left and very long text
    - `holds-secrets`: arguments, triggers and refs hold (fake) secrets
    - `paused`: its triggers are paused
    """
    preset_runs: tuple[PresetRun, ...] = ()
    """Runs that the scenario has put in their place, the oldest first."""

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
