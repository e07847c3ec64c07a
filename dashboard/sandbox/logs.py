"""Logs: what the containers of job runs and builds write, and what a request asks for.

Each line is a function of its container, its number and its time, so nothing is kept.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from .children import Child
from .errors import ApiError
from .secret_lines import list_secret_lines

INTERVAL = 2.0
"""Seconds between two lines; of the first ones a fifth of it."""
SILENT_AFTER = 20.0
"""Seconds until a job that hangs falls silent."""
LAST_WORDS = "waiting for lock on table orders held by pid 4121 (idle in transaction)"
"""The last line of a job that hangs."""

WRITERS: dict[str, Callable[[int], str]] = {
    "JobRun": lambda n: f"copied {(n + 1) * 1250} rows of orders",
    "Build": lambda n: f"#{n // 5 + 4} {n % 60 / 10:.1f} \x1b[36mnpm\x1b[0m fetch GET 200 {n}",
}
"""Return the text of a container's line with a number."""


class Line(NamedTuple):
    time: float
    """In seconds since 1970."""
    container: str
    text: str


def read_child(child: Child, since: float, until: float) -> list[Line]:
    """Return what a job run or a build has written from `since` to `until`."""
    step, begun, end = child.step, child.started_at, child.concluded_at
    first = [f"Starting {child.name}, attempt {child.attempt}"]
    if "holds-secrets" in child.run.flow.behaviours:
        first += list_secret_lines(child.run.flow.pipeline, step.ref)
    lines = [(begun + INTERVAL / 5 * n, text) for n, text in enumerate(first)]
    quiet_at = end - 1
    # By when it is due, which aborts don't change: what has been written remains.
    hangs = child.due_at - begun > 2 * max(*step.duration_range, SILENT_AFTER)
    if hangs and step.kind == "JobRun" and "chatty" not in step.behaviours:
        quiet_at = min(quiet_at, begun + SILENT_AFTER)
        lines.append((quiet_at + 1, LAST_WORDS))
    lines += _write_steadily(step.kind, begun + 6, since, min(until, quiet_at))
    last = ["Done"]
    if child.error:
        last = [*f"\x1b[31mERROR\x1b[0m {child.error}".splitlines(), "exit status 1"]
    if child.is_cut_short:
        last = ["Received SIGTERM, stopping"]
    lines += [(end - 0.1 * (len(last) - n), text) for n, text in enumerate(last)]
    until = min(until, end)
    return [Line(time, child.name, text) for time, text in lines if since <= time <= until]


def _write_steadily(
    kind: str, start: float, since: float, until: float
) -> Iterator[tuple[float, str]]:
    """Yield the lines at an even rate from `start` on that are within a span."""
    first = max(0, math.ceil((since - start) / INTERVAL))
    last = math.floor((until - start) / INTERVAL)
    return ((start + n * INTERVAL, WRITERS[kind](n)) for n in range(first, last + 1))


# --- queries -------------------------------------------------------------------------------------

PARAMETERS = {
    "direction": ("backward", "backward|forward"),
    "lineLimit": ("100", "1000|[0-9]{1,3}"),
    "duration": ("1800", "[0-9]{1,9}"),
}
"""Defaults, which Northflank does not document, and patterns."""


def select_lines(query: Mapping[str, str], now: float, children: Iterable[Child]) -> list[Line]:
    """Return the lines of job runs or builds that a request asks for.

    Raises ApiError if a parameter is invalid.
    """
    values = {name: query.get(name, default) for name, (default, _) in PARAMETERS.items()}
    for name, (_, pattern) in PARAMETERS.items():
        if not re.fullmatch(pattern, values[name]):
            raise ApiError(400, "Invalid query", {name: [f"must match {pattern}"]})
    until = _parse_time(query, "endTime", now)
    since = _parse_time(query, "startTime", until - int(values["duration"]))
    lines = [line for child in children for line in read_child(child, since, min(until, now))]
    matching = [line for line in lines if query.get("textIncludes", "") in line.text]
    matching.sort(key=lambda line: line.time, reverse=values["direction"] == "backward")
    return matching[: int(values["lineLimit"])]


def _parse_time(query: Mapping[str, str], name: str, default: float) -> float:
    try:
        return datetime.fromisoformat(query[name]).timestamp() if name in query else default
    except ValueError:
        raise ApiError(400, "Invalid query", {name: ["must be a time"]}) from None
