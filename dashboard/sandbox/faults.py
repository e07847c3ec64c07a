"""Faults: scripted errors of the sandbox, and the syntax to request them.

    NAME[:VALUE][+SECONDS][%PROBABILITY][*COUNT][@TARGET]

`500`, `latency:0.3`, `503+60`, `500%0.2@/runs`, `reset*3`, `latency:5@POST`, `forbidden:payments`.
SECONDS count from the start of the sandbox. TARGET is a part of "METHOD /path", so it can select a
method, a resource or a single run; with a final `$` it is the end of the path.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Literal

from . import fault_responses as do
from .fault_responses import Edit, Replace, Spoil


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault that can be requested; without a function it is implemented in `app.py`."""

    description: str
    default_value: str | None = None
    """None if the fault takes no value, or requires one."""
    value_format: Literal["text", "number", "status", "json"] = "text"
    is_value_required: bool = False
    is_abort_only: bool = False
    replace: Replace | None = None
    """Returns a response in place of the API's: the request has no effect."""
    edit: Edit | None = None
    """Edits the JSON of the response."""
    spoil: Spoil | None = None
    """Edits the response as a whole."""


OPTIONAL_FIELDS = "description,startedAt,concludedAt,refs,response,settings,steps"
"""Optional fields of runs and nodes: clients must work without them."""

FAULT_KINDS: dict[str, FaultKind] = {
    "latency": FaultKind("Answers after VALUE seconds", "1", "number"),
    "500": FaultKind(
        "Answers 500 with an error body", replace=do.error(500, "Internal server error")
    ),
    "503": FaultKind("Answers 503 with an error body", replace=do.error(503, "Unavailable")),
    "502-html": FaultKind(
        "Answers 502 with an HTML page, like a proxy", replace=do.html_page(502, "Bad Gateway")
    ),
    "404": FaultKind(
        "Answers 404 with an error body, as for a missing object",
        replace=do.error(404, "Not found"),
    ),
    "404-html": FaultKind(
        "Answers 404 with an HTML page, like a proxy", replace=do.html_page(404, "Not Found")
    ),
    "bad-token": FaultKind(
        "Answers 401 as if the token were wrong", replace=do.error(401, "Unauthorized")
    ),
    "feature-401": FaultKind(
        "Answers 401: feature not enabled for the account",
        replace=do.error(401, "Feature flag release-flows is not enabled for this account"),
    ),
    "forbidden": FaultKind(
        "Refuses everything in the project VALUE, with the status of the choice `no-access`",
        is_value_required=True,
        replace=do.forbid_project,
    ),
    "rate-limited": FaultKind("Answers 429 and uses up the window's requests"),
    "too-fast": FaultKind(
        "Answers 429 with `Retry-After: VALUE`, and keeps the window's requests", "5", "number"
    ),
    "error-without-wrapper": FaultKind(
        "Answers status VALUE with a body without `error` around it",
        *("500", "status"),
        replace=do.error_without_wrapper,
    ),
    "error-string": FaultKind(
        "Answers status VALUE with a text as `error`", "500", "status", replace=do.error_string
    ),
    "reset": FaultKind(
        "Drops the connection; the request has no effect", replace=do.drop_connection
    ),
    "reset-after": FaultKind(
        "Lets the request take effect, then drops the connection", spoil=do.drop_after
    ),
    "truncated": FaultKind("Breaks off in the middle of the body", spoil=do.truncate),
    "not-json": FaultKind("Answers 200 with text instead of JSON", spoil=do.not_json),
    "empty-body": FaultKind("Answers 200 with an empty body", spoil=do.empty_body),
    "huge": FaultKind("Streams a body of VALUE megabytes", "50", "number", spoil=do.huge_body),
    "data": FaultKind("Sends VALUE, which is JSON, as `data`", "null", "json", edit=do.set_data),
    "unreadable": FaultKind(
        "Sends null in place of the first VALUE entries of a list",
        *("1", "number"),
        edit=do.edit_list(do.make_unreadable),
    ),
    "hidden": FaultKind(
        "Leaves the entry with the id VALUE out of lists",
        is_value_required=True,
        edit=do.edit_list(do.hide_entry),
    ),
    "surplus": FaultKind(
        "Sends a full page of a list, and VALUE entries more",
        *("1000", "number"),
        edit=do.edit_list(do.add_surplus),
    ),
    "missing-fields": FaultKind(
        "Leaves out the fields named in VALUE (`status,createdAt`)",
        OPTIONAL_FIELDS,
        edit=do.remove_fields,
    ),
    "unknown-status": FaultKind(
        "Sends VALUE as every status", "hibernating", edit=do.replace_status
    ),
    "abort-timeout": FaultKind(
        "Accepts an abort, then does not answer for VALUE seconds",
        *("60", "number"),
        is_abort_only=True,
        spoil=do.drop_after,
    ),
    "abort-lost": FaultKind(
        "Neither aborts nor answers for VALUE seconds",
        *("60", "number"),
        is_abort_only=True,
        replace=do.drop_connection,
    ),
}


@dataclass
class Fault:
    name: str
    value: str = ""
    probability: float = 1.0
    count: int | None = None
    """How often the fault applies; None: always."""
    target: str = ""
    """A part of "METHOD /path" that requests must contain."""
    after_seconds: float = 0.0
    """Seconds from the start of the sandbox until the fault applies."""
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
        self._check_format(kind.value_format)
        if not 0 <= self.probability <= 1:
            raise ValueError(f"the probability of fault {self.name!r} must be between 0 and 1")

    def _check_format(self, value_format: str) -> None:
        if value_format == "json":
            try:
                json.loads(self.value)
            except ValueError as error:
                raise ValueError(f"fault {self.name!r} needs JSON, not {self.value!r}") from error
        elif value_format != "text":
            if not re.fullmatch(r"\d+(\.\d+)?", self.value):
                raise ValueError(f"fault {self.name!r} needs a number, not {self.value!r}")
            if value_format == "status" and not 400 <= self.number <= 599:
                raise ValueError(f"fault {self.name!r} needs a status between 400 and 599")

    @property
    def kind(self) -> FaultKind:
        return FAULT_KINDS[self.name]

    @property
    def number(self) -> float:
        """The value as a number."""
        return float(self.value)

    def try_trigger(self, method: str, path: str, random_value: float, uptime: float) -> bool:
        """Return whether the fault applies to a request, and count it if so.

        `random_value` is between 0 and 1; `uptime` is in seconds since the start of the sandbox.
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
    """Parse a fault as written on the command line; raise ValueError with a message for users."""
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
