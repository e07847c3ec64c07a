"""Faults: ways in which the sandbox can misbehave, and the small language to ask for them.

    NAME[:VALUE][+SECONDS][%PROBABILITY][*COUNT][@PART]

`500`, `latency:0.3`, `503+60`, `500%0.2@/runs`, `reset*3`, `latency:5@POST`, `forbidden:payments`.
SECONDS are those that the sandbox has been up. PART is looked for in "METHOD /path", so it can pick
a method, a resource or a single run, and with `$` at its end what the path ends in; for webhooks,
in "EVENT URL".
"""

import json
import re
from dataclasses import dataclass, field
from enum import Enum


class When(Enum):
    """Where a fault strikes; before means that the request has no effect."""

    DELAY = "delay"
    BEFORE = "before"
    PAYLOAD = "payload"
    BODY = "body"
    WEBHOOK = "webhook"


@dataclass(frozen=True)
class Kind:
    """A fault that can be asked for."""

    about: str
    when: When
    default: str | None = None
    """The value if none is given; None where the fault takes no value."""
    required: bool = False
    """Whether there must be a value."""
    number: bool = False
    """Whether the value must be a number."""
    json: bool = False
    """Whether the value must be JSON."""
    aborts_only: bool = False


FIELDS = "description,startedAt,concludedAt,refs,response,settings,steps"
"""Optional fields of runs and nodes, which a client must do without."""

KINDS: dict[str, Kind] = {
    "latency": Kind("Answers after VALUE seconds", When.DELAY, "1", number=True),
    "500": Kind("Answers 500 with an error body", When.BEFORE),
    "503": Kind("Answers 503 with an error body", When.BEFORE),
    "502-html": Kind("Answers 502 with an HTML page, like a proxy", When.BEFORE),
    "404": Kind("Answers 404 with an error body, as where there is no such thing", When.BEFORE),
    "404-html": Kind("Answers 404 with an HTML page, like a proxy", When.BEFORE),
    "bad-token": Kind("Answers 401 as if the token were wrong", When.BEFORE),
    "feature-401": Kind("Answers 401: feature not enabled for the account", When.BEFORE),
    "forbidden": Kind(
        "Refuses everything in the project VALUE, as the choice `no-access` says",
        When.BEFORE,
        required=True,
    ),
    "rate-limited": Kind("Answers 429 as if the hour's requests were used up", When.BEFORE),
    "too-fast": Kind(
        "Answers 429 with `Retry-After: VALUE`, with the hour's requests left",
        When.BEFORE,
        "5",
        number=True,
    ),
    "error-without-wrapper": Kind(
        "Answers status VALUE with a body without `error` around it",
        When.BEFORE,
        "500",
        number=True,
    ),
    "error-string": Kind(
        "Answers status VALUE with a text as `error`", When.BEFORE, "500", number=True
    ),
    "reset": Kind("Drops the connection; the request has no effect", When.BEFORE),
    "reset-after": Kind("Lets the request take effect, then drops the connection", When.BODY),
    "truncated": Kind("Breaks off in the middle of the body", When.BODY),
    "not-json": Kind("Answers 200 with text instead of JSON", When.BODY),
    "empty-body": Kind("Answers 200 with an empty body", When.BODY),
    "huge": Kind("Streams an answer of VALUE megabytes", When.BODY, "50", number=True),
    "data": Kind("Sends VALUE, which is JSON, as `data`", When.PAYLOAD, "null", json=True),
    "unreadable": Kind(
        "Sends null in place of the first VALUE entries of a list", When.PAYLOAD, "1", number=True
    ),
    "hidden": Kind("Leaves the entry with the id VALUE out of lists", When.PAYLOAD, required=True),
    "surplus": Kind(
        "Sends a full page of a list, and VALUE entries more", When.PAYLOAD, "1000", number=True
    ),
    "missing-fields": Kind(
        "Leaves out the fields named in VALUE (`status,createdAt`)", When.PAYLOAD, FIELDS
    ),
    "null-fields": Kind("Sets the fields named in VALUE to null", When.PAYLOAD, FIELDS),
    "unknown-status": Kind("Sends VALUE as every status", When.PAYLOAD, "hibernating"),
    "unknown-kind": Kind("Sends VALUE as every node kind", When.PAYLOAD, "Teleport"),
    "abort-timeout": Kind(
        "Accepts an abort, then does not answer for VALUE seconds",
        When.BODY,
        "60",
        number=True,
        aborts_only=True,
    ),
    "abort-lost": Kind(
        "Neither aborts nor answers for VALUE seconds",
        When.BEFORE,
        "60",
        number=True,
        aborts_only=True,
    ),
    "webhook-lost": Kind("Never sends a webhook", When.WEBHOOK),
    "webhook-late": Kind(
        "Sends a webhook VALUE seconds late, so that others overtake it",
        When.WEBHOOK,
        "5",
        number=True,
    ),
    "webhook-twice": Kind("Sends a webhook twice", When.WEBHOOK),
}


@dataclass
class Fault:
    name: str
    value: str = ""
    probability: float = 1.0
    count: int | None = None
    """How often it strikes; None means always."""
    part: str = ""
    """What must occur in "METHOD /path", or in "EVENT URL" of a webhook."""
    after: float = 0.0
    """It strikes only once the sandbox has been up for so many seconds."""
    struck: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        kind = KINDS.get(self.name)
        if kind is None:
            raise ValueError(f"unknown fault {self.name!r}; known are: {', '.join(KINDS)}")
        if self.value and kind.default is None and not kind.required:
            raise ValueError(f"fault {self.name!r} takes no value, but was given {self.value!r}")
        self.value = self.value or kind.default or ""
        if kind.required and not self.value:
            raise ValueError(f"fault {self.name!r} needs a value: {self.name}:VALUE")
        if kind.number and not re.fullmatch(r"\d+(\.\d+)?", self.value):
            raise ValueError(f"fault {self.name!r} needs a number, not {self.value!r}")
        if kind.json:
            self._check_json()
        if self.name.startswith("error-") and not 400 <= self.amount <= 599:
            raise ValueError(f"fault {self.name!r} needs a status between 400 and 599")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"the probability of fault {self.name!r} must be between 0 and 1")

    def _check_json(self) -> None:
        try:
            json.loads(self.value)
        except ValueError as error:
            raise ValueError(f"fault {self.name!r} needs JSON, not {self.value!r}") from error

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    @property
    def amount(self) -> float:
        """The value as a number."""
        return float(self.value)

    def applies(self, method: str, path: str, dice: float, age: float) -> bool:
        """Tell whether it strikes a request, and count it if so.

        `dice` is a number between 0 and 1, `age` the seconds that the sandbox has been up.
        """
        if self.after and age < self.after:
            return False
        if self.part not in f"{method} {path}$":
            return False
        if self.kind.aborts_only and not (method == "POST" and path.endswith("/abort")):
            return False
        if self.name == "forbidden" and f"/projects/{self.value}/" not in f"{path}/":
            return False
        if self.count is not None and self.struck >= self.count:
            return False
        if dice >= self.probability:
            return False
        self.struck += 1
        return True


_GRAMMAR = re.compile(
    r"(?P<name>[^:+%*@]+)(:(?P<value>[^+%*@]+))?(\+(?P<after>\d*\.?\d+))?"
    r"(%(?P<probability>\d*\.?\d+))?(\*(?P<count>\d+))?(@(?P<part>.+))?"
)


def parse_fault(text: str) -> Fault:
    """Read a fault as written on the command line; raise ValueError with a message to show."""
    match = _GRAMMAR.fullmatch(text)
    if not match:
        raise ValueError(
            f"cannot read the fault {text!r}; write NAME[:VALUE][+SECONDS][%PROBABILITY][*COUNT]"
            "[@PART], for example 500%0.2@/runs"
        )
    count = match["count"]
    return Fault(
        match["name"],
        match["value"] or "",
        float(match["probability"] or 1),
        int(count) if count else None,
        match["part"] or "",
        float(match["after"] or 0),
    )
