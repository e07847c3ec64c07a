"""Faults: ways in which the sandbox can misbehave, and the small language to ask for them.

    NAME[:VALUE][+SECONDS][%PROBABILITY][*COUNT][@TARGET]

`500`, `latency:0.3`, `503+60`, `500%0.2@/runs`, `reset*3`, `latency:5@POST`, `forbidden:payments`.
SECONDS are those that the sandbox has been up. TARGET is part of "METHOD /path", so it can pick
a method, a resource or a single run, and with `$` at its end what the path ends in; for webhooks,
in "EVENT URL".
"""

import json
import re
from dataclasses import dataclass, field
from enum import Enum


class FaultPhase(Enum):
    """Where a fault strikes; before means that the request has no effect."""

    DELAY = "delay"
    BEFORE = "before"
    PAYLOAD = "payload"
    BODY = "body"
    WEBHOOK = "webhook"


@dataclass(frozen=True)
class FaultKind:
    """A fault that can be asked for."""

    description: str
    phase: FaultPhase
    default_value: str | None = None
    """The value if none is given; None where the fault takes no value."""
    is_value_required: bool = False
    """Whether there must be a value."""
    is_number: bool = False
    """Whether the value must be a number."""
    is_json: bool = False
    """Whether the value must be JSON."""
    is_abort_only: bool = False


OPTIONAL_FIELDS = "description,startedAt,concludedAt,refs,response,settings,steps"
"""Optional fields of runs and nodes, which a client must do without."""

FAULT_KINDS: dict[str, FaultKind] = {
    "latency": FaultKind("Answers after VALUE seconds", FaultPhase.DELAY, "1", is_number=True),
    "500": FaultKind("Answers 500 with an error body", FaultPhase.BEFORE),
    "503": FaultKind("Answers 503 with an error body", FaultPhase.BEFORE),
    "502-html": FaultKind("Answers 502 with an HTML page, like a proxy", FaultPhase.BEFORE),
    "404": FaultKind(
        "Answers 404 with an error body, as where there is no such thing", FaultPhase.BEFORE
    ),
    "404-html": FaultKind("Answers 404 with an HTML page, like a proxy", FaultPhase.BEFORE),
    "bad-token": FaultKind("Answers 401 as if the token were wrong", FaultPhase.BEFORE),
    "feature-401": FaultKind("Answers 401: feature not enabled for the account", FaultPhase.BEFORE),
    "forbidden": FaultKind(
        "Refuses everything in the project VALUE, as the choice `no-access` says",
        FaultPhase.BEFORE,
        is_value_required=True,
    ),
    "rate-limited": FaultKind(
        "Answers 429 as if the hour's requests were used up", FaultPhase.BEFORE
    ),
    "too-fast": FaultKind(
        "Answers 429 with `Retry-After: VALUE`, with the hour's requests left",
        FaultPhase.BEFORE,
        "5",
        is_number=True,
    ),
    "error-without-wrapper": FaultKind(
        "Answers status VALUE with a body without `error` around it",
        FaultPhase.BEFORE,
        "500",
        is_number=True,
    ),
    "error-string": FaultKind(
        "Answers status VALUE with a text as `error`", FaultPhase.BEFORE, "500", is_number=True
    ),
    "reset": FaultKind("Drops the connection; the request has no effect", FaultPhase.BEFORE),
    "reset-after": FaultKind(
        "Lets the request take effect, then drops the connection", FaultPhase.BODY
    ),
    "truncated": FaultKind("Breaks off in the middle of the body", FaultPhase.BODY),
    "not-json": FaultKind("Answers 200 with text instead of JSON", FaultPhase.BODY),
    "empty-body": FaultKind("Answers 200 with an empty body", FaultPhase.BODY),
    "huge": FaultKind(
        "Streams an answer of VALUE megabytes", FaultPhase.BODY, "50", is_number=True
    ),
    "data": FaultKind(
        "Sends VALUE, which is JSON, as `data`", FaultPhase.PAYLOAD, "null", is_json=True
    ),
    "unreadable": FaultKind(
        "Sends null in place of the first VALUE entries of a list",
        FaultPhase.PAYLOAD,
        "1",
        is_number=True,
    ),
    "hidden": FaultKind(
        "Leaves the entry with the id VALUE out of lists",
        FaultPhase.PAYLOAD,
        is_value_required=True,
    ),
    "surplus": FaultKind(
        "Sends a full page of a list, and VALUE entries more",
        FaultPhase.PAYLOAD,
        "1000",
        is_number=True,
    ),
    "missing-fields": FaultKind(
        "Leaves out the fields named in VALUE (`status,createdAt`)",
        FaultPhase.PAYLOAD,
        OPTIONAL_FIELDS,
    ),
    "null-fields": FaultKind(
        "Sets the fields named in VALUE to null", FaultPhase.PAYLOAD, OPTIONAL_FIELDS
    ),
    "unknown-status": FaultKind("Sends VALUE as every status", FaultPhase.PAYLOAD, "hibernating"),
    "unknown-kind": FaultKind("Sends VALUE as every node kind", FaultPhase.PAYLOAD, "Teleport"),
    "abort-timeout": FaultKind(
        "Accepts an abort, then does not answer for VALUE seconds",
        FaultPhase.BODY,
        "60",
        is_number=True,
        is_abort_only=True,
    ),
    "abort-lost": FaultKind(
        "Neither aborts nor answers for VALUE seconds",
        FaultPhase.BEFORE,
        "60",
        is_number=True,
        is_abort_only=True,
    ),
    "webhook-lost": FaultKind("Never sends a webhook", FaultPhase.WEBHOOK),
    "webhook-late": FaultKind(
        "Sends a webhook VALUE seconds late, so that others overtake it",
        FaultPhase.WEBHOOK,
        "5",
        is_number=True,
    ),
    "webhook-twice": FaultKind("Sends a webhook twice", FaultPhase.WEBHOOK),
}


@dataclass
class Fault:
    name: str
    value: str = ""
    probability: float = 1.0
    count: int | None = None
    """How often it strikes; None means always."""
    target: str = ""
    """What must occur in "METHOD /path", or in "EVENT URL" of a webhook."""
    after_seconds: float = 0.0
    """It strikes only once the sandbox has been up for so many seconds."""
    hit_count: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        kind = FAULT_KINDS.get(self.name)
        if kind is None:
            raise ValueError(f"unknown fault {self.name!r}; known are: {', '.join(FAULT_KINDS)}")
        if self.value and kind.default_value is None and not kind.is_value_required:
            raise ValueError(f"fault {self.name!r} takes no value, but was given {self.value!r}")
        self.value = self.value or kind.default_value or ""
        if kind.is_value_required and not self.value:
            raise ValueError(f"fault {self.name!r} needs a value: {self.name}:VALUE")
        if kind.is_number and not re.fullmatch(r"\d+(\.\d+)?", self.value):
            raise ValueError(f"fault {self.name!r} needs a number, not {self.value!r}")
        if kind.is_json:
            self._check_json()
        if self.name.startswith("error-") and not 400 <= self.number <= 599:
            raise ValueError(f"fault {self.name!r} needs a status between 400 and 599")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"the probability of fault {self.name!r} must be between 0 and 1")

    def _check_json(self) -> None:
        try:
            json.loads(self.value)
        except ValueError as error:
            raise ValueError(f"fault {self.name!r} needs JSON, not {self.value!r}") from error

    @property
    def kind(self) -> FaultKind:
        return FAULT_KINDS[self.name]

    @property
    def number(self) -> float:
        """The value as a number."""
        return float(self.value)

    def try_trigger(self, method: str, path: str, random_value: float, uptime: float) -> bool:
        """Tell whether it strikes a request, and count it if so.

        `dice` is a number between 0 and 1, `age` the seconds that the sandbox has been up.
        """
        if self.after_seconds and uptime < self.after_seconds:
            return False
        if self.target not in f"{method} {path}$":
            return False
        if self.kind.is_abort_only and not (method == "POST" and path.endswith("/abort")):
            return False
        if self.name == "forbidden" and f"/projects/{self.value}/" not in f"{path}/":
            return False
        if self.count is not None and self.hit_count >= self.count:
            return False
        if random_value >= self.probability:
            return False
        self.hit_count += 1
        return True


_GRAMMAR = re.compile(
    r"(?P<name>[^:+%*@]+)(:(?P<value>[^+%*@]+))?(\+(?P<after>\d*\.?\d+))?"
    r"(%(?P<probability>\d*\.?\d+))?(\*(?P<count>\d+))?(@(?P<target>.+))?"
)


def parse_fault(text: str) -> Fault:
    """Read a fault as written on the command line; raise ValueError with a message to show."""
    match = _GRAMMAR.fullmatch(text)
    if not match:
        raise ValueError(
            f"cannot read the fault {text!r}; write NAME[:VALUE][+SECONDS][%PROBABILITY][*COUNT]"
            "[@TARGET], for example 500%0.2@/runs"
        )
    count = match["count"]
    return Fault(
        match["name"],
        match["value"] or "",
        float(match["probability"] or 1),
        int(count) if count else None,
        match["target"] or "",
        float(match["after"] or 0),
    )
