"""User names: how long they may be, and which ones are taken.

The abort log and all other pages name people by their user names alone.
"""

from django.contrib.auth.models import User
from django.utils.translation import gettext_lazy

from dashboard.texts.rich_text import MessageTable

MAX_LENGTH = 150  # as in Django's model
_text = MessageTable({"name_taken": gettext_lazy("An account with this name already exists.")})
NAME_TAKEN = _text("name_taken")


def is_taken(username: str) -> bool:
    """Return whether an account has this name, in any case."""
    # Not by the database: SQLite folds the case of ASCII letters only.
    names = User.objects.values_list("username", flat=True)
    return username.casefold() in map(str.casefold, names.iterator())
