"""What the commands print: tables, runs and their aborts, for people and as JSON."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from django.db.models import Max
from django.utils import timezone

from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.models import Abort, Run, Worker
from dashboard.runs import statuses
from dashboard.sync import freshness
from dashboard.web.api import queries, serializers
from dashboard.web.http import links

LONG = 2000  # characters of a sentence that holds what Northflank or a person wrote


def json(said: Any) -> str:
    """Return it as JSON, as the API would, and for people to read too."""
    return msgspec.json.format(msgspec.json.encode(said), indent=2).decode()


def plain(text: str, most: int = 60) -> str:
    """Return a text of limited length without anything that moves a terminal's cursor."""
    shown = "".join(c if c.isprintable() else "�" for c in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def clock(when: datetime | None) -> str:
    """Return a point in time in the dashboard's zone."""
    return f"{timezone.localtime(when):%Y-%m-%d %H:%M:%S %Z}" if when else "–"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under their heads, each column as wide as it has to be."""
    lines = [list(head), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def of_run(run: Run) -> str:
    """Tell how a run stands."""
    look = statuses.of_run(run.status, gone=run.is_gone)
    gone = f" Northflank knows it no more since {clock(run.gone_at)}." if run.gone_at else ""
    lines = [
        f"{plain(run.name, 200)} ({run.run_id})" if run.name else run.run_id,
        str(queries.place_of(run)),
        f"{look.word}: {look.sentence}{gone} As of {clock(run.seen_at)}.",
        f"Created {clock(run.created_at)}; started {clock(run.started_at)}.",
        links.whole(serializers.path_of(run)),
    ]
    if run.in_flight and run.step:
        lines.insert(3, f"Step: {plain(run.step, 200)}")
    if run.concluded_at:
        lines[-2] += f" Concluded {clock(run.concluded_at)}."
    return "\n".join(lines)


def of_abort(abort: Abort, run: Run) -> str:
    """Tell how an abort stands, and its trail."""
    trail = abort_timeline.lines(abort, abort.events.all())
    return "\n".join(
        [
            plain(abort_messages.of(abort, run).sentence, LONG),
            *(f"  {clock(line.at)}  {plain(line.text, LONG)}" for line in trail),
        ]
    )


def why_blind(now: datetime) -> str:
    """Say since when nobody reads Northflank; empty while somebody does."""
    heard_of = Worker.objects.aggregate(last=Max("beat_at"))["last"]
    if heard_of is not None and freshness.is_alive(heard_of, now):
        return ""
    since = f"since {clock(heard_of)}" if heard_of else "yet"
    return f"No worker was heard of {since}: does `serve` or `sync` run, with this database?"
