"""Severity of a duration that is longer than typical."""

from enum import IntEnum


class Severity(IntEnum):
    """Stored as a number, so that the worst of several is their maximum."""

    OK = 0
    WARNING = 1  # longer than typical
    CRITICAL = 2  # so long that a person must act
