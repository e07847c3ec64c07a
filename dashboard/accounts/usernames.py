"""User names: how long they may be, and which ones would be read as somebody else's.

The abort log and all other pages name people by their user names alone.
"""

import unicodedata
from collections.abc import Mapping
from functools import cache

from django.contrib.auth.models import User
from django.utils.translation import gettext_lazy

from dashboard.texts.rich_text import Message, MessageTable

MAX_LENGTH = 150  # as in Django's model
# What may stand beside letters of another script: digits, signs and accents, and the scripts that
# Japanese and Korean mix, whose letters look like none of the Latin ones.
_MIXABLE_SCRIPTS = ["COMMON", "INHERITED", "HAN", "HIRAGANA", "KATAKANA", "HANGUL"]
_text = MessageTable(
    {
        "mixed_scripts": gettext_lazy(
            "The user name mixes letters of several alphabets, such as Latin and Cyrillic."
        ),
        "name_taken": gettext_lazy(
            "An account with this name, or one that looks like it, already exists."
        ),
    }
)
NAME_TAKEN = _text("name_taken")


def problem(username: str) -> Message | None:
    """Return why a new account may not have this name, if so."""
    if has_mixed_scripts(username):
        return _text("mixed_scripts")
    return NAME_TAKEN if is_taken(username) else None


def has_mixed_scripts(username: str) -> bool:
    """Return whether a name has letters of several scripts, one of which may pass for another."""
    from confusable_homoglyphs import confusables  # takes 10 MB, which few processes need

    return bool(confusables.is_mixed_script(username, _MIXABLE_SCRIPTS))


def is_taken(username: str) -> bool:
    """Return whether an account has this name, in any case, or one that looks like it (UTS 39)."""
    names = User.objects.values_list("username", flat=True)
    looks = _looks(username)
    return any(looks & _looks(name) for name in names.iterator())


def _looks(username: str) -> set[str]:
    """Return texts of which names that look alike share one.

    As it is written, since “I” looks like “l”, and in lower case.
    """
    written = unicodedata.normalize("NFD", username)
    return {text.translate(_prototypes()).casefold() for text in (written, written.casefold())}


@cache
def _prototypes() -> Mapping[int, str]:
    """Return the letters by the code points of those that look like them."""
    from confusable_homoglyphs.confusables import confusables_data

    # The data name for each letter those that look like it, in both directions: of many that look
    # alike, only one names more than one.
    looks = {letter: [like["c"] for like in found] for letter, found in confusables_data.items()}
    return {
        ord(like): letter
        for letter, likes in looks.items()
        for like in likes
        if len(like) == 1 and (len(likes), letter) > (len(looks[like]), like)
    }
