"""User names: how long they may be, and whether one is taken."""

from django.contrib.auth.models import User

MAX_LENGTH = 150  # as in Django's model


def is_taken(username: str, *, except_key: int = 0) -> bool:
    """Return whether an account has this name, in any case: such names would be confused."""
    return User.objects.filter(username__iexact=username).exclude(pk=except_key).exists()
