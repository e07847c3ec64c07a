"""The options of a sandbox, and their command-line arguments."""

import math
import re
from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .choices import Choices
from .faults import Fault, parse_fault
from .scenarios import SCENARIOS

OPENING_INTERVAL = 300
"""Seconds; scenarios open at a multiple of it, so that a restart soon after has the same runs."""


@dataclass
class Options:
    """Options of a sandbox; raise ValueError, with a message for users, if a value is invalid."""

    token: str = "sandbox"
    seed: int = 1
    scenario: str = "everyday"
    opened_at: int | None = None
    """In seconds since 1970, like `schedule_origin`; None: see `with_opening`."""
    schedule_origin: int = 0
    history_hours: float = 72
    rate_limit: int = 1000  # Northflank's limit
    rate_window_seconds: float = 3600.0
    choices: dict[str, str] = field(default_factory=dict)
    """Overrides of the scenario's choices and of the defaults."""
    faults: list[Fault] = field(default_factory=list)
    webhook_urls: list[str] = field(default_factory=list)
    webhook_secret: str = ""

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            names = ", ".join(SCENARIOS)
            raise ValueError(f"unknown scenario {self.scenario!r}; known are: {names}")
        if not self.token:
            raise ValueError("the token must not be empty")
        if not 0 < self.history_hours < math.inf:
            raise ValueError("the history must be a number of hours above 0")
        if self.rate_limit < 1:
            raise ValueError("the rate limit must be at least 1")
        Choices(self.choices)  # checks them
        for url in self.webhook_urls:
            if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url):
                raise ValueError(f"the webhook {url!r} is not a web address")

    def with_opening(self, now: float) -> "Options":
        """Return the options with `opened_at`: if not given, the last full five minutes."""
        if self.opened_at is not None:
            return self
        return replace(self, opened_at=int(now // OPENING_INTERVAL * OPENING_INTERVAL))


_NUMBER: dict[str, Any] = {"type": int}
_REPEATED: dict[str, Any] = {"action": "append"}
_SCENARIOS = "; ".join(f"{name}: {scenario.description}" for name, scenario in SCENARIOS.items())

_ARGUMENTS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "token": ("--token", "TOKEN", "the token clients must send", {}),
    "seed": ("--seed", "SEED", "the same seed, the same runs", _NUMBER),
    "scenario": ("--scenario", "NAME", _SCENARIOS, {}),
    "opened_at": (
        *("--opened", "SECONDS"),
        "when the scenario opened, in seconds since 1970; default: the last full five minutes",
        _NUMBER,
    ),
    "schedule_origin": (
        *("--origin", "SECONDS"),
        "start of the schedule, in seconds since 1970: the same happens at the same distance",
        _NUMBER,
    ),
    "history_hours": ("--history-hours", "HOURS", "how far back runs are listed", {"type": float}),
    "rate_limit": ("--rate-limit", "REQUESTS", "requests an hour", _NUMBER),
    "choices": ("--choice", "NAME=VALUE", "decide what the API leaves open; repeatable", _REPEATED),
    "faults": (
        *("--fault", "FAULT"),
        "misbehave: NAME[:VALUE][+SECONDS][*COUNT][@TARGET]; may be repeated",
        _REPEATED,
    ),
    "webhook_urls": (
        "--webhook",
        "URL",
        "send events of release flows there; repeatable",
        _REPEATED,
    ),
    "webhook_secret": ("--webhook-secret", "TEXT", "the token in webhooks; empty: none", {}),
}
"""By field of the options: flag, metavar, help, and what else argparse needs."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the sandbox's options to a command's parser; see `build_options`."""
    group, defaults = parser.add_argument_group("sandbox"), Options()
    for name, (flag, metavar, text, settings) in _ARGUMENTS.items():
        default = [] if settings is _REPEATED else getattr(defaults, name)
        group.add_argument(flag, dest=name, metavar=metavar, help=text, default=default, **settings)


def build_options(arguments: Mapping[str, Any]) -> Options:
    """Return the options from parsed arguments; raise ValueError with a message for users."""
    values = {name: arguments[name] for name in _ARGUMENTS}
    values["choices"] = dict(map(_parse_choice, values["choices"]))
    values["faults"] = [parse_fault(text) for text in values["faults"]]
    return Options(**values)


def _parse_choice(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"cannot read the choice {text!r}; write NAME=VALUE")
    return name.strip(), value.strip()
