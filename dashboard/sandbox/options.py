"""The options of a sandbox, and their command-line arguments."""

import re
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from .choices import parse_choice
from .faults import Fault, parse_fault
from .scenarios import SCENARIOS


@dataclass
class Options:
    token: str = "sandbox"
    seed: int = 1
    scenario: str = "stuck-production"
    opened_at: int | None = None
    """In seconds since 1970, like `schedule_origin`; None: when the sandbox starts."""
    schedule_origin: int = 0
    history_hours: float = 72
    rate_limit: int = 1000  # Northflank's limit
    rate_window_seconds: float = 3600.0
    choices: dict[str, str] = field(default_factory=dict)
    """Overrides of the scenario's choices and of the defaults."""
    faults: list[Fault] = field(default_factory=list)
    webhook_urls: list[str] = field(default_factory=list)
    webhook_secret: str = ""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the sandbox's options to a command's parser; see `build_options`."""
    add = parser.add_argument_group("sandbox", argument_default=SUPPRESS).add_argument
    add("--token", help="the token clients must send")
    add("--seed", type=int, help="the same seed, the same runs")
    text = " ".join(f"{name}: {scenario.projects.__doc__}" for name, scenario in SCENARIOS.items())
    add("--scenario", choices=SCENARIOS, metavar="NAME", help=text)
    text = "when the scenario opened, in seconds since 1970; default: at the start"
    add("--opened", dest="opened_at", type=int, metavar="SECONDS", help=text)
    text = "start of the schedule, in seconds since 1970: the same happens at the same distance"
    add("--origin", dest="schedule_origin", type=int, metavar="SECONDS", help=text)
    add("--history-hours", type=float, metavar="HOURS", help="how far back runs are listed")
    add("--rate-limit", type=int, metavar="REQUESTS", help="requests an hour")
    add("--webhook-secret", metavar="TEXT", help="the token in webhooks; empty: none")

    text = "decide what the API leaves open; repeatable"
    repeatable = partial(add, action="append")
    repeatable("--choice", dest="choices", type=parse_choice, metavar="NAME=VALUE", help=text)
    text = "misbehave: NAME[:VALUE][+SECONDS][*COUNT][@TARGET]; repeatable"
    repeatable("--fault", dest="faults", type=parse_fault, metavar="FAULT", help=text)
    text = "send events of release flows there; repeatable"
    repeatable("--webhook", dest="webhook_urls", type=_check_address, metavar="URL", help=text)


def build_options(arguments: Mapping[str, Any]) -> Options:
    """Return the options from parsed arguments."""
    options = Options(**{f.name: arguments[f.name] for f in fields(Options) if f.name in arguments})
    options.choices = dict(options.choices)  # from pairs
    return options


def _check_address(url: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url):
        raise ArgumentTypeError(f"{url!r} is not a web address")
    return url
