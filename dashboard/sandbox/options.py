"""What can be set about a sandbox, and the command line for it."""

import argparse
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .faults import Fault, parse_fault
from .scenarios import SCENARIOS


@dataclass(frozen=True)
class Choice:
    """A behaviour that the API's documentation leaves open."""

    description: str
    values: tuple[str, ...]
    """What may be chosen, the default first."""


CHOICES: dict[str, Choice] = {
    "run-order": Choice("Order of runs in a list", ("newest-first", "oldest-first", "shuffled")),
    "timestamps": Choice("How times of runs and flows are written", ("space", "T", "no-fraction")),
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
    "retry-after": Choice("Whether a 429 carries `Retry-After`", ("absent", "present")),
    "429-body": Choice("Body of a 429", ("error", "text", "no-wrapper")),
    "rate-limit-headers": Choice("Whether answers carry `x-ratelimit-*`", ("present", "absent")),
    "last-cursor": Choice("`cursor` on the last page", ("omitted", "null", "empty")),
    "no-access": Choice("What the role may not see (see the fault `forbidden`)", ("403", "404")),
    "webhook-body": Choice(
        "What the body of a webhook names: its project, also pipeline, stage and run, or nothing",
        ("project", "ids", "empty"),
    ),
}


@dataclass
class Choices:
    """What was chosen, by name: `choices["run-order"]`. What was not has its default."""

    overrides: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.overrides.items():
            self._validate(name, value)

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
            # Any time may be asked for, so that tests need not wait.
            seconds = re.fullmatch(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?", value)
            if not seconds or float(seconds[1]) > float(seconds[2] or seconds[1]):
                raise ValueError(f"abort-seconds is a number or a range like 2-6, not {value!r}")
        elif value not in CHOICES[name].values:
            known = ", ".join(CHOICES[name].values)
            raise ValueError(f"choice {name!r} cannot be {value!r}; possible are: {known}")


@dataclass
class Options:
    token: str = "sandbox"
    seed: int = 1
    scenario: str = "everyday"
    opened_at: int | None = None
    """When the scenario opened, in seconds since 1970; None: when the sandbox starts, roughly."""
    schedule_origin: int = 0
    """From when the schedule is counted, in seconds since 1970."""
    history_hours: float = 72
    """How far back the lists of runs reach."""
    rate_limit: int = 1000
    """Requests in one window; Northflank's default."""
    rate_window_seconds: float = 3600.0
    """Length of the window in seconds."""
    choices: Choices = field(default_factory=Choices)
    faults: list[Fault] = field(default_factory=list)
    webhook_urls: list[str] = field(default_factory=list)
    """Addresses that are told of every event about release flows."""
    webhook_secret: str = ""
    """What they are sent as the token; empty: none."""

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            known = ", ".join(SCENARIOS)
            raise ValueError(f"unknown scenario {self.scenario!r}; known are: {known}")
        if not self.token:
            raise ValueError("the token must not be empty")
        if not 0 < self.history_hours < math.inf:
            raise ValueError("the history must be a number of hours above 0")
        if self.rate_limit < 1:
            raise ValueError("the rate limit must be at least 1")
        for url in self.webhook_urls:
            if not _is_web_address(url):
                raise ValueError(f"the webhook {url!r} is not a web address")


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port out of range, too
        return False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sandbox's options to a command's parser; `options_from` reads them back."""
    defaults = Options()
    group = parser.add_argument_group("sandbox")
    group.add_argument("--token", default=defaults.token, help="the token clients must send")
    group.add_argument("--seed", type=int, default=defaults.seed, help="the same seed, same runs")
    group.add_argument(
        "--scenario",
        default=defaults.scenario,
        metavar="NAME",
        help="; ".join(f"{name}: {scenario.description}" for name, scenario in SCENARIOS.items()),
    )
    group.add_argument(
        "--opened",
        type=int,
        metavar="SECONDS",
        help="when the scenario opened, in seconds since 1970; by default at the last full five"
        " minutes before the start",
    )
    group.add_argument(
        "--origin",
        type=int,
        default=defaults.schedule_origin,
        metavar="SECONDS",
        help="from when the schedule is counted, in seconds since 1970: the same happens as long"
        " after any of them, at any time of day",
    )
    group.add_argument(
        "--history-hours",
        type=float,
        default=defaults.history_hours,
        metavar="HOURS",
        help="how far back the lists of runs reach; the stuck run began 3.5 hours ago at most",
    )
    group.add_argument(
        "--rate-limit", type=int, default=defaults.rate_limit, help="requests an hour"
    )
    group.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="FAULT",
        help="misbehave: NAME[:VALUE][+SECONDS][%%PROBABILITY][*COUNT][@TARGET], for"
        " example 500%%0.2@/runs; may be repeated",
    )
    group.add_argument(
        "--choice",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="decide what the API leaves open, for example run-order=shuffled; may be repeated",
    )
    group.add_argument(
        "--webhook",
        action="append",
        default=[],
        metavar="URL",
        help="tell this address of every event about release flows; may be repeated",
    )
    group.add_argument(
        "--webhook-secret", default=defaults.webhook_secret, help="the token that webhooks carry"
    )


def build_options(namespace: argparse.Namespace) -> Options:
    """Build the options from parsed arguments; raise ValueError with a message to show."""
    return Options(
        token=namespace.token,
        seed=namespace.seed,
        scenario=namespace.scenario,
        opened_at=namespace.opened,
        schedule_origin=namespace.origin,
        history_hours=namespace.history_hours,
        rate_limit=namespace.rate_limit,
        choices=Choices(dict(_parse_choice(text) for text in _as_list(namespace.choice))),
        faults=[parse_fault(text) for text in _as_list(namespace.fault)],
        webhook_urls=_as_list(namespace.webhook),
        webhook_secret=namespace.webhook_secret,
    )


def _as_list(values: Iterable[str] | None) -> list[str]:
    return list(values or ())


def _parse_choice(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"cannot read the choice {text!r}; write NAME=VALUE")
    return name.strip(), value.strip()
