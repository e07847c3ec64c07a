"""The reasons of aborts that people can pick; others are entered as text."""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

REASONS: dict[str, str | Promise] = {
    "stuck": gettext_lazy("Stuck"),
    "version": gettext_lazy("Wrong version"),
    "mistake": gettext_lazy("Started by mistake"),
    "blocks": gettext_lazy("Blocks another release"),
    "incident": gettext_lazy("Incident"),
}
# How runs that were aborted for none of these are counted.
OTHER, NONE, ELSEWHERE = "other", "none", "elsewhere"
LABELS: dict[str, str | Promise] = REASONS | {
    OTHER: gettext_lazy("Other reason"),
    NONE: gettext_lazy("No reason given"),
    ELSEWHERE: gettext_lazy("Not aborted here"),
}


def find(text: str) -> str:
    """Return the key of a recorded reason in LABELS."""
    picked = (key for key, label in REASONS.items() if text.split(":", maxsplit=1)[0] == str(label))
    return next(picked, OTHER if text.strip() else NONE)
