"""The options of a sandbox and their command-line arguments; each is declared once."""

import argparse
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self
from urllib.parse import urlsplit

from .faults import Fault, parse_fault
from .scenarios import SCENARIOS

OPENING_INTERVAL = 300
"""Seconds; scenarios open at a multiple of it, so that a restart soon after has the same runs."""


@dataclass(frozen=True)
class Choice:
    """A behaviour that the API's documentation leaves open."""

    description: str
    values: tuple[str, ...]
    """The possible values, the default first."""


CHOICES: dict[str, Choice] = {
    "run-order": Choice("Order of runs in a list", ("newest-first", "oldest-first", "shuffled")),
    "timestamps": Choice("How times of runs and flows are written", ("space", "T", "no-fraction")),
    "updated-at": Choice(
        "`updatedAt` of a run: its last change, or its creation", ("exact", "created")
    ),
    "abort-answer": Choice(
        "The run in the answer to an abort; with `aborted` it has ended already",
        ("aborting", "unchanged", "aborted"),
    ),
    "abort-concluded": Choice(
        "Abort of a run that has concluded: the run unchanged, or an error",
        ("200", "400", "404", "409"),
    ),
    "abort-seconds": Choice("Seconds from `aborting` to `aborted`", ("2-6",)),
    "stage-without-flow": Choice("Runs of a stage without a release flow", ("404", "empty-list")),
    "stage-spelling": Choice("Spelling of the stage in a path", ("any", "lower", "capitalised")),
    "retry-after": Choice("Whether a 429 has `Retry-After`", ("absent", "present")),
    "429-body": Choice("Body of a 429", ("error", "text", "no-wrapper")),
    "rate-limit-headers": Choice("Whether answers have `x-ratelimit-*`", ("present", "absent")),
    "last-cursor": Choice("`cursor` on the last page", ("omitted", "null", "empty")),
    "no-access": Choice("What the role may not see (see the fault `forbidden`)", ("403", "404")),
    "webhook-body": Choice(
        "What the body of a webhook names: its project, also pipeline, stage and run, or nothing",
        ("project", "ids", "empty"),
    ),
}


@dataclass
class Choices:
    """Values by name, such as `choices["run-order"]`: an override, else the default."""

    overrides: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.overrides.items():
            self._validate(name, value)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Parse texts of the form NAME=VALUE; raise ValueError with a message for users."""
        overrides: dict[str, str] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals:
                raise ValueError(f"cannot read the choice {text!r}; write NAME=VALUE")
            overrides[name.strip()] = value.strip()
        return cls(overrides)

    def __getitem__(self, name: str) -> str:
        return self.overrides.get(name, CHOICES[name].values[0])

    def __setitem__(self, name: str, value: str) -> None:
        self._validate(name, value)
        self.overrides[name] = value

    @property
    def abort_seconds(self) -> tuple[float, float]:
        low, _, high = self["abort-seconds"].partition("-")
        return float(low), float(high or low)

    @staticmethod
    def _validate(name: str, value: str) -> None:
        if name not in CHOICES:
            raise ValueError(f"unknown choice {name!r}; known are: {', '.join(CHOICES)}")
        if name == "abort-seconds":
            seconds = re.fullmatch(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?", value)
            if not seconds or float(seconds[1]) > float(seconds[2] or seconds[1]):
                raise ValueError(f"abort-seconds is a number or a range like 2-6, not {value!r}")
        elif value not in CHOICES[name].values:
            values = ", ".join(CHOICES[name].values)
            raise ValueError(f"choice {name!r} cannot be {value!r}; possible are: {values}")


def _argument(flag: str, help: str, **more: Any) -> dict[str, Any]:
    """Return field metadata for a command-line argument.

    An argument with `parse` may be repeated; `parse` converts all its texts into the value.
    """
    return {"flag": flag, "help": help, **more}


@dataclass
class Options:
    """Options of a sandbox; raise ValueError, with a message for users, if a value is invalid."""

    token: str = field(
        default="sandbox", metadata=_argument("--token", "the token clients must send")
    )
    seed: int = field(
        default=1, metadata=_argument("--seed", "the same seed, the same runs", type=int)
    )
    scenario: str = field(
        default="everyday",
        metadata=_argument(
            "--scenario",
            "; ".join(f"{name}: {scenario.description}" for name, scenario in SCENARIOS.items()),
            metavar="NAME",
        ),
    )
    opened_at: int | None = field(
        default=None,
        metadata=_argument(
            "--opened",
            "when the scenario opened, in seconds since 1970; default: the last full five minutes"
            " before the start",
            type=int,
            metavar="SECONDS",
        ),
    )
    schedule_origin: int = field(
        default=0,
        metadata=_argument(
            "--origin",
            "start of the schedule, in seconds since 1970: at the same distance from it the same"
            " happens, at any time of day",
            type=int,
            metavar="SECONDS",
        ),
    )
    history_hours: float = field(
        default=72,
        metadata=_argument(
            "--history-hours",
            "how far back the lists of runs reach; the stuck run began 3.5 hours ago at most",
            type=float,
            metavar="HOURS",
        ),
    )
    rate_limit: int = field(
        default=1000,  # Northflank's limit
        metadata=_argument("--rate-limit", "requests an hour", type=int),
    )
    rate_window_seconds: float = 3600.0
    choices: Choices = field(
        default_factory=Choices,
        metadata=_argument(
            "--choice",
            "decide what the API leaves open, for example run-order=shuffled; may be repeated",
            metavar="NAME=VALUE",
            parse=Choices.parse,
        ),
    )
    faults: list[Fault] = field(
        default_factory=list,
        metadata=_argument(
            "--fault",
            "misbehave: NAME[:VALUE][+SECONDS][%%PROBABILITY][*COUNT][@TARGET], for example"
            " 500%%0.2@/runs; may be repeated",
            metavar="FAULT",
            parse=lambda texts: [parse_fault(text) for text in texts],
        ),
    )
    webhook_urls: list[str] = field(
        default_factory=list,
        metadata=_argument(
            "--webhook",
            "send all events about release flows to this address; may be repeated",
            metavar="URL",
            parse=list,
        ),
    )
    webhook_secret: str = field(
        default="", metadata=_argument("--webhook-secret", "the token in webhooks; empty: none")
    )

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
        for url in self.webhook_urls:
            if not _is_web_address(url):
                raise ValueError(f"the webhook {url!r} is not a web address")

    def with_opening(self, now: float) -> "Options":
        """Return the options with `opened_at`: if not given, the last full five minutes."""
        if self.opened_at is not None:
            return self
        return replace(self, opened_at=int(now // OPENING_INTERVAL * OPENING_INTERVAL))

    def describe_world(self) -> str:
        """Return the arguments on which the runs depend: the same ones, the same world."""
        arguments = [f"--scenario {self.scenario}", f"--seed {self.seed}"]
        if self.schedule_origin:
            arguments.append(f"--origin {self.schedule_origin}")
        if SCENARIOS[self.scenario].depends_on_opening and self.opened_at is not None:
            arguments.append(f"--opened {self.opened_at}")
        return " ".join(arguments)


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # also raised for a port out of range
        return False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sandbox's options to a command's parser; see `build_options`."""
    group = parser.add_argument_group("sandbox")
    for option in fields(Options):
        if option.metadata:
            argument = dict(option.metadata)
            flag = argument.pop("flag")
            if argument.pop("parse", None):
                argument |= {"action": "append", "default": []}
            else:
                argument["default"] = option.default
            group.add_argument(flag, dest=option.name, **argument)


def build_options(namespace: argparse.Namespace) -> Options:
    """Return the options from parsed arguments; raise ValueError with a message for users."""
    values: dict[str, Any] = {}
    for option in fields(Options):
        if option.metadata:
            value = getattr(namespace, option.name)
            parse = option.metadata.get("parse")
            values[option.name] = parse(value) if parse else value
    return Options(**values)
