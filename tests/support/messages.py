"""Messages by their keys and parameters, whatever their words are (those are in texts.txt)."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dashboard.texts.rich_text import Message, Value


def keys(text: Value) -> str:
    """The keys of the messages of a text, separated by spaces; inner messages first."""
    return " ".join(message.key for message in messages(text))


def params(text: Value) -> dict[str, Value]:
    """The parameters of the messages of a text, without those that are messages."""
    return {
        name: value
        for message in messages(text)
        for name, value in message.params.items()
        if not isinstance(value, Message | tuple)
    }


def keys_and_params(text: Value) -> tuple[str, dict[str, Value]]:
    """Both, to compare them with those expected."""
    return keys(text), params(text)


@contextmanager
def raises(error: type[Exception], key: str, **expected: Value) -> Iterator[None]:
    """Expect an error with the message of a key, and with these parameters."""
    with pytest.raises(error) as caught:
        yield
    assert keys_and_params(caught.value.args[0]) == (key, expected)


def messages(text: Value) -> Iterator[Message]:
    """The messages of a text, inner ones first."""
    if isinstance(text, Message):
        for value in text.params.values():
            yield from messages(value)
        yield text
    elif isinstance(text, tuple):
        for part in text:
            yield from messages(part)
