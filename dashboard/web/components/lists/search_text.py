"""The text that a list is searched for, as the query string has it."""

from django.utils.translation import gettext_lazy

from dashboard.texts.rich_text import Message, MessageTable

MAX_LENGTH = 200  # characters
_text = MessageTable(
    {"text_cut": gettext_lazy("Only the first %(count)d characters of “%(text)s…” are searched.")}
)


def cut(text: str, warnings: list[Message]) -> str:
    """Return a text without what databases refuse, cut at MAX_LENGTH with a warning."""
    text = text.replace("\0", "").strip()
    if len(text) > MAX_LENGTH:
        warnings.append(_text("text_cut", count=MAX_LENGTH, text=text[:40]))
    return text[:MAX_LENGTH].strip()
