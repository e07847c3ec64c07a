"""The spelling of a stage in API paths, `production` or `Production`, as confirmed by use."""

from functools import cache

from dashboard.db.prepared import PreparedQuery
from dashboard.models import Stage


def find_confirmed() -> str | None:
    """Return a path segment that has worked for any stage, or None if none has yet."""
    return next((path for (path,) in _confirmed_query().fetch()), None)


@cache
def _confirmed_query() -> PreparedQuery:
    confirmed = Stage.objects.exclude(confirmed_path_segment="").order_by("pk")
    return PreparedQuery(confirmed.values_list("confirmed_path_segment")[:1])


def is_capitalised(path: str | None) -> bool:
    """Return whether a path segment begins with a capital letter; False for None."""
    return path is not None and path[0].isupper()


def candidate_segments(name: str, confirmed_segment: str | None) -> tuple[str, ...]:
    """Return both spellings of a stage's name, first the one that matches `confirmed_segment`."""
    segments = name.lower(), name.capitalize()
    return segments[::-1] if is_capitalised(confirmed_segment) else segments
