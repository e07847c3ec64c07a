"""Messages by their keys and parameters, whatever their words are (those are in texts.txt)."""

from collections.abc import Iterator

from dashboard.texts.rich_text import Message, Value


def keys(text: Value) -> str:
    """The keys of the messages of a text, separated by spaces; inner messages first."""
    return " ".join(message.key for message in _messages(text))


def params(text: Value) -> dict[str, Value]:
    """The parameters of the messages of a text, without those that are messages."""
    return {
        name: value
        for message in _messages(text)
        for name, value in message.params.items()
        if not isinstance(value, Message | tuple)
    }


def keys_and_params(text: Value) -> tuple[str, dict[str, Value]]:
    """Both, to compare them with those expected."""
    return keys(text), params(text)


def _messages(text: Value) -> Iterator[Message]:
    if isinstance(text, Message):
        for value in text.params.values():
            yield from _messages(value)
        yield text
    elif isinstance(text, tuple):
        for part in text:
            yield from _messages(part)
