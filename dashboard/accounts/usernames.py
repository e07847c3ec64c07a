"""User names: how long they may be, and which ones would be read as another account's.

The abort log and all other pages name people by their user names alone.
"""

import unicodedata
from functools import cache

from django.contrib.auth.models import User
from django.utils.translation import gettext_lazy

from dashboard.texts.rich_text import Message, MessageTable

MAX_LENGTH = 150  # as in Django's model
# They stand beside letters of any script: digits and accents; Chinese, Japanese and Korean.
_MIXABLE_SCRIPTS = ["COMMON", "INHERITED", "HAN", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"]
_text = MessageTable(
    {
        "name_mixed": gettext_lazy("This name mixes alphabets, such as Latin and Cyrillic."),
        "name_taken": gettext_lazy(
            "An account with this name, or a name that looks like it, already exists."
        ),
    }
)


def problem(username: str) -> Message | None:
    """Return why no new account may have this name, if so."""
    if is_mixed(username):
        return _text("name_mixed")
    return _text("name_taken") if is_taken(username) else None


def is_mixed(username: str) -> bool:
    """Return whether a name has letters of alphabets that look alike, such as Cyrillic “а”."""
    from confusable_homoglyphs import confusables  # 10 MB, only where accounts are added

    return bool(confusables.is_mixed_script(username, _MIXABLE_SCRIPTS))


def is_taken(username: str) -> bool:
    """Return whether an account has this name, in any case, or a name that looks like it."""
    # Not by the database: SQLite folds the case of ASCII letters only.
    written, folded = _skeleton(username), _skeleton(username.casefold())
    names = User.objects.values_list("username", flat=True)
    return any(
        written == _skeleton(name) or folded == _skeleton(name.casefold())
        for name in names.iterator()
    )


def _skeleton(username: str) -> str:
    """Return a text that all names share that look alike (UTS 39)."""
    return "".join(map(_prototype, unicodedata.normalize("NFD", username)))


@cache
def _prototype(letter: str) -> str:
    """Return the letter for which a letter and its look-alikes stand: it has the most of them."""
    from confusable_homoglyphs.confusables import confusables_data

    alike: list[str] = [letter, *(each["c"] for each in confusables_data.get(letter, []))]
    return max(alike, key=lambda each: (len(confusables_data.get(each, [])), each))
