"""What a run waits for and the newest lines of its log: a part of its page, and a page."""

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy

from dashboard.db import threads as db_threads
from dashboard.models import Run
from dashboard.runs import steps, waiting_for
from dashboard.runs.waiting_for import WaitingFor
from dashboard.runs.works import AwaitedWork
from dashboard.sync.log_reader import LINES, MAX_LINES, DatedLine, LogView
from dashboard.texts.rich_text import Countdown, Elapsed, Message, MessageTable, RichText
from dashboard.web.components import macros
from dashboard.web.http import links

COUNTS = (LINES, 200, MAX_LINES)  # of lines, each shown after “Earlier lines” of the one before
MAX_FIND_LENGTH = 200  # characters
_text = MessageTable(
    {
        "silent": gettext_lazy("Silent %(elapsed)s"),
        "no_lines": gettext_lazy("No line yet: silent %(elapsed)s"),
        "no_lines_ended": gettext_lazy("No log output."),
        "next_read": gettext_lazy("Next look %(countdown)s."),
        "retry": gettext_lazy("Tries again %(countdown)s."),
    }
)


@dataclass(frozen=True, slots=True)
class LogQuery:
    """How many lines are shown, and only those with a text; as in the address."""

    max_lines: int = LINES
    find: str = ""

    @classmethod
    def parse(cls, lines: str, find: str) -> "LogQuery":
        """Return the query; what is no number of lines counts as the first."""
        number = int(lines) if lines.isascii() and lines.isdecimal() and len(lines) < 9 else LINES
        return cls(min(max(number, LINES), MAX_LINES), find[:MAX_FIND_LENGTH])

    def __str__(self) -> str:
        parameters = {"lines": self.max_lines} if self.max_lines != LINES else {}
        query = urlencode(parameters | ({"find": self.find} if self.find else {}))
        return f"?{query}" if query else ""


def panel(
    run: Run,
    awaited: AwaitedWork,
    view: LogView,
    query: LogQuery,
    denied_reason: Message | str = "",
) -> dict[str, Any]:
    """Return what the template shows of a look; with `denied_reason` nothing of the log."""
    work, ref = view.work, awaited[1]
    lines = () if denied_reason else view.lines or ()
    is_read = view.lines is not None and not denied_reason
    is_running = work is not None and not work.concluded
    started_at = work.started_at if work is not None and is_running else None
    silent_since = (view.last_line_at or started_at) if is_read and is_running else None
    silence: RichText = ""
    if silent_since is not None:
        silence = _text("silent" if lines else "no_lines", elapsed=Elapsed(silent_since))
    elif is_read and not lines:
        silence = _text("no_lines_ended")
    next_read: RichText = ""
    if view.next_read_at is not None and (view.problem or not denied_reason):
        key = "retry" if view.problem else "next_read"
        next_read = _text(key, countdown=Countdown(view.next_read_at))
    looks_again_in, more = view.looks_again_in, [n for n in COUNTS if n > query.max_lines]
    return {
        "view": view,
        "query": query,
        "kind": ref.kind,
        "waiting_text": waiting_for.describe(run, ref, work),
        "elapsed": Elapsed(started_at) if started_at is not None else "",
        "silence": silence,
        "silent_since": silent_since,
        "denied_reason": denied_reason,
        "is_being_read": view.lines is None and not (view.problem or denied_reason),
        "has_lines": bool(lines),
        "lines": _render(lines, query.find),
        # The query of an address with more lines.
        "earlier": str(LogQuery(more[0], query.find)) if more and lines and view.has_more else "",
        "has_redacted": any(line.is_redacted for _at, line in lines),
        "next_read": next_read,
        # None: nothing changes any more.
        "looks_again_at": None
        if looks_again_in is None
        else db_threads.now() + timedelta(seconds=looks_again_in),
    }


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Where a run's page loads the panel, after what is stored: another for each step, and end."""

    id: str
    url: str
    text: Message
    waiting: WaitingFor


def place(run: Run, waiting: WaitingFor) -> LogPlace:
    """Return the place of the panel on a run's page."""
    node, ref, work = waiting
    state = f"{steps.key(node)} {ref.id} {run.concluded}"
    text = waiting_for.describe(run, ref, work)
    return LogPlace(f"log-{zlib.crc32(state.encode()):x}", links.logs_url(run), text, waiting)


def _render(lines: Iterable[DatedLine], find: str) -> SafeString:
    """Return the lines that contain a text, as markup."""
    seen: Counter[str] = Counter()  # of one time there may be several
    rendered = []
    for at, line in lines:
        moment = f"{at.timestamp() * 1000:.0f}" if at else "none"
        seen[moment] += 1
        if find.casefold() in line.text.casefold():
            name = f"line-{moment}-{seen[moment]}"
            rendered.append(macros.render("log_line.html#log_line", name, at, line))
    return mark_safe("\n".join(rendered))  # noqa: S308 - by a macro, which escapes
