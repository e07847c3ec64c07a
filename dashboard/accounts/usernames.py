"""User names: how long they may be, and whether one is taken."""

from django.contrib.auth.models import User

MAX_LENGTH = 150  # as in Django's model


def is_taken(username: str, *, except_key: int = 0) -> bool:
    """Return whether an account has this name, in any case: such names would be confused."""
    others = User.objects.exclude(pk=except_key)
    if others.filter(username__iexact=username).exists():
        return True
    if username.isascii():
        return False
    # SQLite, and PostgreSQL with some collations, fold ASCII letters only.
    names = others.values_list("username", flat=True).iterator()
    return username.casefold() in map(str.casefold, names)
