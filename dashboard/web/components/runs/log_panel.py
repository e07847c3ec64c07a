"""What a run waits for and the newest lines of its log: a part of its page, and a page."""

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from urllib.parse import urlencode

from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
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
        "no_lines_ended": gettext_lazy("It has written no line."),
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


@dataclass(frozen=True)
class LogPanel:
    """A look at a log as its template shows it."""

    run: Run
    awaited: AwaitedWork
    view: LogView
    query: LogQuery
    denied_reason: Message | str = ""  # why the log is not shown to this user

    @property
    def waiting_text(self) -> Message:
        return waiting_for.describe(self.run, self.awaited[1], self.view.work)

    @property
    def kind(self) -> str:
        return self.awaited[1].kind

    @property
    def elapsed(self) -> RichText:
        """For how long it has been in progress; empty once it has ended."""
        work = self.view.work
        if work is None or work.concluded or work.started_at is None:
            return ""
        return Elapsed(work.started_at)

    @property
    def silence(self) -> RichText:
        """Since when there is no line; empty once it has ended, or before it was read."""
        work, last_at = self.view.work, self.view.last_line_at
        if work is None or self.view.lines is None or self.denied_reason:
            return ""
        if work.concluded:
            return "" if self.view.lines else _text("no_lines_ended")
        since = self.silent_since
        if since is None:
            return ""
        return _text("silent" if last_at else "no_lines", elapsed=Elapsed(since))

    @cached_property
    def silent_since(self) -> datetime | None:
        """The time of the last line or, without one, of the start; None once it has ended."""
        work = self.view.work
        if work is None or work.concluded or self.view.lines is None or self.denied_reason:
            return None
        return self.view.last_line_at or work.started_at

    @property
    def next_read(self) -> RichText:
        next_at = self.view.next_read_at
        if next_at is None or (self.denied_reason and not self.view.problem):
            return ""
        return _text("retry" if self.view.problem else "next_read", countdown=Countdown(next_at))

    @property
    def looks_again_at(self) -> datetime | None:
        """When an open page looks again; None: nothing changes any more."""
        seconds = self.view.looks_again_in
        return None if seconds is None else db_threads.now() + timedelta(seconds=seconds)

    @property
    def is_being_read(self) -> bool:
        return self.view.lines is None and not (self.view.problem or self.denied_reason)

    @property
    def has_lines(self) -> bool:
        return bool(self.view.lines) and not self.denied_reason

    @cached_property
    def lines(self) -> SafeString:
        """The lines that contain the text of the query, as markup."""
        wanted = self.query.find.casefold()
        lines = (line for line in self.view.lines or () if wanted in line.line.text.casefold())
        return mark_safe("\n".join(_render(lines)))  # noqa: S308 - by a macro, which escapes

    @property
    def earlier(self) -> str:
        """The query of an address with more lines; empty if there are none."""
        more = next((count for count in COUNTS if count > self.query.max_lines), None)
        return str(LogQuery(more, self.query.find)) if more and self.view.has_more else ""

    @property
    def redacted_note(self) -> str:
        if self.has_lines and any(line.line.is_redacted for line in self.view.lines or ()):
            return _("Values that look like secrets are left out.")
        return ""


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Where a run's page loads the panel: another element for each step, and for its end."""

    id: str
    url: str
    text: Message


def place(run: Run, waiting: WaitingFor) -> LogPlace:
    """Return the place of the panel on a run's page."""
    node, ref, work = waiting
    state = f"{steps.key(node)} {ref.id} {run.concluded}"
    text = waiting_for.describe(run, ref, work)
    return LogPlace(f"log-{zlib.crc32(state.encode()):x}", links.logs_url(run), text)


def _render(lines: Iterable[DatedLine]) -> Iterator[SafeString]:
    seen: Counter[str] = Counter()  # of one time there may be several
    for at, line in lines:
        moment = f"{at.timestamp() * 1000:.0f}" if at else "none"
        seen[moment] += 1
        yield macros.render("log_line.html#log_line", f"line-{moment}-{seen[moment]}", at, line)
