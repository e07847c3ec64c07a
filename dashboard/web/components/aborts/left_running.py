"""What the abort of a run has left running, for the run's page; what its steps have running now."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from dashboard.aborts import left_running
from dashboard.aborts.left_running import LeftWork
from dashboard.accounts.permissions import Permission
from dashboard.models import Run
from dashboard.northflank import Node
from dashboard.runs import steps
from dashboard.runs.statuses import StatusDisplay
from dashboard.texts.rich_text import Message
from dashboard.web.components.aborts.abort_details import AbortEntry, work_label
from dashboard.web.http import links


def panel(run: Run, root: Node | None, permission: Permission) -> dict[str, Any] | None:
    """Return the context of the panel; None if there is nothing to show."""
    left = left_running.load(run, root)
    if left is None or not (left.works or left.is_being_read):
        return None
    abortable = [found for found in left.works if found.is_abortable]
    return {
        "rows": [row(run, found) for found in left.works],
        "is_being_read": left.is_being_read,
        "more_count": left.more_count,
        "permission": permission,
        "abortable_count": len(abortable),
        "abort_all_url": abort_url(run, abortable),
    }


def row(run: Run, left: LeftWork) -> dict[str, Any]:
    """Return the context of one job run or build, whose status is shown as sent."""
    work = left.work
    tone, glyph = ("running", "play") if work.in_flight else ("neutral", "stop")
    return {
        "left": left,
        "work": work,
        "label": work_label(work.kind, work.name),
        "display": StatusDisplay(work.status or "unknown", "", tone, glyph),
        "aborts": [AbortEntry(abort) for abort in left.aborts],
        "abort_url": abort_url(run, [left]),
    }


def abort_url(run: Run, works: Iterable[LeftWork]) -> str:
    """Return the address of the confirmation of an abort of these."""
    address = reverse("abort_left", args=[*links.stage_url_args(run.stage), run.run_id])
    return f"{address}?{urlencode([('work', left.work.pk) for left in works])}"


def running_now(run: Run) -> list[tuple[Message, datetime | None]]:
    """Return what the steps of a run in progress name, which its abort may leave running.

    Each as a text, and since when it, or its step, has run.
    """
    named = steps.walk(root) if (root := steps.decode(run.steps)) is not None else ()
    running = {node.work: node for _, node in named if node.work and steps.is_in_progress(node)}
    if not running:
        return []
    rows = {(row.kind, row.owner_id, row.work_id): row for row in run.works.all()}
    found = []
    for ref, node in running.items():
        row = rows.get((ref.kind, ref.owner_id, ref.id or ""))
        if ref.id is None or (row is not None and not row.in_flight):
            continue
        label = work_label(ref.kind, row.name if row is not None else "", ref.owner_id)
        found.append((label, (row.started_at if row is not None else None) or node.started_at))
    return found
