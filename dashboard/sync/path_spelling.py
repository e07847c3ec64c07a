"""How an address spells a stage: `production` or `Production`, as has worked."""

from dashboard.models import Stage


def find_confirmed() -> str | None:
    """Return a spelling that has worked for any stage; None: none has been tried yet."""
    return (
        Stage.objects.exclude(confirmed_path_segment="")
        .values_list("confirmed_path_segment", flat=True)
        .first()
    )


def is_capitalised(path: str | None) -> bool:
    """Say whether a spelling begins with a capital."""
    return path is not None and path[0].isupper()


def candidate_segments(name: str, confirmed_segment: str | None) -> tuple[str, ...]:
    """Return the spellings of a stage's name, the likeliest first, where `path` has worked."""
    segments = name.lower(), name.capitalize()
    return segments[::-1] if is_capitalised(confirmed_segment) else segments
