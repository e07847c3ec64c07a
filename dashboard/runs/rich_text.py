"""Rich text: translated sentences with parts other than text, such as running times. Pure.

Where a name or a time stands in a sentence depends on the language, so each template is translated
as a whole.
"""

import re

_PLACEHOLDER = re.compile(r"%\((\w+)\)[sd]")


class Link(str):
    """A URL; dialog.js makes it absolute by the page's own address."""

    __slots__ = ()


def format_parts[T](
    template: str, **parts: str | int | T | tuple[str | T, ...]
) -> tuple[str | T, ...]:
    """Return the parts of a template, with each `%(name)s` replaced by the part of that name.

    A part that is itself rich text (a tuple) is flattened; an empty one is left out.
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
    """Return the sentences joined by spaces, without empty ones."""
    result: list[str | T] = []
    for sentence in filter(None, sentences):
        result += [" "] if result else []
        result += [sentence] if isinstance(sentence, str) else sentence
    return tuple(result)
