"""Durations as people say them."""

from datetime import timedelta


def in_words(span: timedelta) -> str:
    """Return a duration in at most two units: "41 s", "4 min 12 s", "2 h 5 min", "3 d 4 h"."""
    seconds = max(round(span.total_seconds()), 0)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600} h"
