"""Translated sentences with more than text in them, such as times that go on by themselves. Pure.

Where a name or a time stands in a sentence is up to the language: a template says it, and is
translated as a whole.
"""

import re

_PLACEHOLDER = re.compile(r"%\((\w+)\)[sd]")


def format_parts[T](
    template: str, **parts: str | int | T | tuple[str | T, ...]
) -> tuple[str | T, ...]:
    """Return a template in parts, with those that are given where it names them: `%(name)s`.

    A tuple is itself a sentence in parts.
    """
    result: list[str | T] = []
    for index, piece in enumerate(_PLACEHOLDER.split(template)):
        part = parts[piece] if index % 2 else piece.replace("%%", "%")
        if isinstance(part, tuple):
            result.extend(part)
        elif part != "":
            result.append(str(part) if isinstance(part, int) else part)
    return tuple(result)


def join_sentences[T](*sentences: str | tuple[str | T, ...]) -> tuple[str | T, ...]:
    """Return sentences one after another, without those that are empty."""
    result: list[str | T] = []
    for sentence in filter(None, sentences):
        result += [" "] if result else []
        result += [sentence] if isinstance(sentence, str) else sentence
    return tuple(result)
