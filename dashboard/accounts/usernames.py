"""User names: how long they may be, and which ones would be read as another account's.

The abort log and all other pages name people by their user names alone.
"""

import re
import unicodedata
from functools import cache

from django.contrib.auth.models import User
from django.utils.translation import gettext_lazy

from dashboard.texts.rich_text import Message, MessageTable

MAX_LENGTH = 150  # as in Django's model
_ALPHABETS = frozenset({"LATIN", "GREEK", "CYRILLIC"})  # they share letters of the same look
_PARTS = re.compile(r"[@.\-_+\s]")
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
    """Return whether a part of a name mixes Latin, Greek and Cyrillic: “аlice”, not “dev-Ω”."""
    from confusable_homoglyphs import categories  # 10 MB, only where accounts are added

    return any(
        len(_ALPHABETS.intersection(map(categories.alias, part))) > 1
        for part in _PARTS.split(username)
    )


def is_taken(username: str) -> bool:
    """Return whether an account has this name, ignoring case, or a name that looks like it.

    A letter of another script counts as the Latin letters that it looks like. Latin letters and
    digits count as themselves: “modem” and “modern” are two names.
    """
    # Not by the database: SQLite folds the case of ASCII letters only.
    letters = _letters(username)
    names = User.objects.values_list("username", flat=True)
    return any(_look_alike(letters, _letters(name)) for name in names.iterator())


def _letters(username: str) -> list[frozenset[str]]:
    return [_latin(letter) for letter in unicodedata.normalize("NFD", username.casefold())]


def _look_alike(one: list[frozenset[str]], other: list[frozenset[str]]) -> bool:
    return len(one) == len(other) and all(a & b for a, b in zip(one, other, strict=True))


@cache
def _latin(letter: str) -> frozenset[str]:
    """Return the Latin letters that a letter looks like; itself if there are none."""
    from confusable_homoglyphs import categories
    from confusable_homoglyphs.confusables import confusables_data

    if categories.alias(letter) in {"LATIN", "COMMON", "INHERITED"}:
        return frozenset(letter)
    alike = [
        each["c"].casefold()
        for form in (letter, letter.upper())
        for each in confusables_data.get(form, [])
    ]
    latin = {each for each in alike if len(each) == 1 and categories.alias(each) == "LATIN"}
    return frozenset(latin or letter)
