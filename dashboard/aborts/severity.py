"""How long an abort may take before people should wonder, and before they should act. Pure.

Northflank says nothing of how long aborting lasts, and has no way to force it.
"""

from datetime import datetime, timedelta
from enum import IntEnum

from django.conf import settings


class Level(IntEnum):
    """How far an abort is overdue."""

    CALM = 0
    AMBER = 1  # longer than usual
    RED = 2  # something has to be done: there are next steps


def after(level: Level) -> timedelta:
    """Return for how long an abort has been asked for when it reaches a level."""
    seconds = {
        Level.CALM: 0,
        Level.AMBER: settings.ABORT_AMBER_AFTER,
        Level.RED: settings.ABORT_RED_AFTER,
    }
    return timedelta(seconds=seconds[level])


def level(since: datetime, now: datetime) -> Level:
    """Return how far an abort that was asked for at `since` is overdue."""
    return max(level for level in Level if now - since >= after(level) or level is Level.CALM)
