"""How an address spells a stage: `production` or `Production`, as has worked."""

from dashboard.models import Stage


def worked() -> str | None:
    """Return a spelling that has worked for any stage; None: none has been tried yet."""
    return Stage.objects.exclude(path="").values_list("path", flat=True).first()


def is_capitalised(path: str | None) -> bool:
    """Say whether a spelling begins with a capital."""
    return path is not None and path[0].isupper()


def likely(name: str, path: str | None) -> tuple[str, ...]:
    """Return the spellings of a stage's name, the likeliest first, where `path` has worked."""
    both = name.lower(), name.capitalize()
    return both[::-1] if is_capitalised(path) else both
