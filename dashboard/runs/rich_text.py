"""Translated sentences with more than text in them, such as times that go on by themselves. Pure.

Where a name or a time stands in a sentence is up to the language: a template says it, and is
translated as a whole.
"""

import re

_PLACE = re.compile(r"%\((\w+)\)[sd]")


def fill[T](template: str, **parts: str | int | T | tuple[str | T, ...]) -> tuple[str | T, ...]:
    """Return a template in parts, with those that are given where it names them: `%(name)s`.

    A tuple is itself a sentence in parts.
    """
    found: list[str | T] = []
    for place, piece in enumerate(_PLACE.split(template)):
        part = parts[piece] if place % 2 else piece.replace("%%", "%")
        if isinstance(part, tuple):
            found.extend(part)
        elif part != "":
            found.append(str(part) if isinstance(part, int) else part)
    return tuple(found)


def together[T](*sentences: str | tuple[str | T, ...]) -> tuple[str | T, ...]:
    """Return sentences one after another, without those that are empty."""
    found: list[str | T] = []
    for sentence in filter(None, sentences):
        found += [" "] if found else []
        found += [sentence] if isinstance(sentence, str) else sentence
    return tuple(found)
