"""Why a run failed: the step and its error, as rows name them, and failures of one cause. Pure."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from django.utils.translation import gettext_lazy

from dashboard.models import Run
from dashboard.northflank import Node
from dashboard.runs import summary
from dashboard.texts.rich_text import ExternalText, MessageTable, RichText

MAX_LENGTH = 300  # characters of a stored name or error
# Colours and the like of a terminal. The mirror has replaced their first character (values.clean).
_TERMINAL_ESCAPE = re.compile("[\x1b\ufffd]\\[[0-9;?]*[A-Za-z]")
_NUMBER_OR_ID = re.compile(r"(?<![\w-])(?:[^\W\d]|-)*+\d[\w-]*")  # a word with a digit
_text = MessageTable(
    {
        "step_error": gettext_lazy("%(step)s: %(error)s"),
        "step": gettext_lazy("%(step)s, without a message"),
        "no_step": gettext_lazy("No step names an error."),
        "unread": gettext_lazy("Cause not read yet."),
    }
)


class Cause(NamedTuple):
    """The stage of a failed run, and its `failed_step` and `failed_step_error`."""

    stage: int  # key
    step: str | None
    error: str | None


def find_step(root: Node | None) -> tuple[str, str]:
    """Return the step at which a run failed, and the first line of its error; empty if none is.

    Of an error without a message that is its code.
    """
    node = summary.failed_step(root)
    if node is None:
        return "", ""
    message = _TERMINAL_ESCAPE.sub("", node.error_message or "")
    line = next(filter(str.strip, message.splitlines()), "")
    if not line and node.error_code is not None:
        line = f"code {node.error_code}"
    return _cut(node.label if node.label.strip() else node.kind), _cut(line)


def _cut(text: str) -> str:
    return str(ExternalText(text, MAX_LENGTH))


def describe(run: Run) -> RichText:
    """Return the cause of a failed run, for its row; empty for others, or if it stays unknown."""
    if not run.has_failed:
        return ""
    if run.failed_step is None:
        is_readable = run.removed_at is None and run.steps_removed_at is None
        return _text("unread") if is_readable else ""
    if not run.failed_step:
        return _text("no_step")
    step = ExternalText(run.failed_step)
    if not run.failed_step_error:
        return _text("step", step=step)
    return _text("step_error", step=step, error=ExternalText(run.failed_step_error, MAX_LENGTH))


def group[T](failures: Iterable[tuple[T, Cause]]) -> list[list[T]]:
    """Return failures in groups of one cause, each in the place of its first.

    In a group are failures of a stage at one step, with the same error but for numbers and ids, and
    between which the stage has no other. Without a known step each is alone.
    """
    groups: list[list[T]] = []
    latest: dict[int, tuple[tuple[str, str] | None, list[T]]] = {}  # by stage
    for failure, cause in failures:
        pattern = (cause.step, _NUMBER_OR_ID.sub("#", cause.error or "")) if cause.step else None
        latest_pattern, latest_group = latest.get(cause.stage, (None, []))
        if pattern is not None and pattern == latest_pattern:
            latest_group.append(failure)
            continue
        groups.append([failure])
        latest[cause.stage] = pattern, groups[-1]
    return groups
