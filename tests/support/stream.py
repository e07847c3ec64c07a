"""Event streams, read as a browser would."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from selectolax.lexbor import LexborHTMLParser, LexborNode

from dashboard.models import ChangeCounter
from tests.support.live import PATIENCE

# For tests of what rings no bell: a feed that looks all the time.
fast_polling = pytest.mark.parametrize("beat", [0.05], ids=["brisk"])


@dataclass
class Message:
    event: str = ""
    data: list[str] = field(default_factory=list)
    id: str = ""

    @property
    def parts(self) -> dict[str, LexborNode]:
        """The elements it brings, by their ids."""
        markup = "\n".join(self.data)
        # Rows and cells are no rows outside a table to a parser; here only their text matters.
        html = LexborHTMLParser(markup.replace("<tr", "<div").replace("<td", "<div"))
        return {(part.attributes["hx-target"] or "")[1:]: part for part in html.css("hx-partial")}


def messages(answer: httpx.Response) -> Iterator[Message]:
    """Read an event stream."""
    message = Message()
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if not line:
            yield message
            message = Message()
        elif name == "data":
            message.data.append(value)
        else:
            setattr(message, name, value)


@contextlib.contextmanager
def open_stream(
    person: httpx.Client, page: str = "now", key: int = 0, since: int | None = None, **headers: str
) -> Iterator[Iterator[Message]]:
    """Listen as `person` to a page; the opening message has been read."""
    version = ChangeCounter.latest() if since is None else since
    address = f"/live/?page={page}&key={key}&since={version}"
    with person.stream("GET", address, headers=headers, timeout=PATIENCE) as answer:
        assert answer.status_code == 200
        stream = messages(answer)
        opening = next(stream)
        assert "data-age" in opening.parts
        yield stream


def about(stream: Iterator[Message], id: str, words: str = "") -> LexborNode:
    """Read on until an element with this id is brought, saying so."""
    until = time.monotonic() + PATIENCE
    for message in stream:
        assert time.monotonic() < until, f"nothing was heard of {id}"
        part = message.parts.get(id)
        if part is not None and words in part.text():
            return part
    raise AssertionError(f"the stream ended without {id}")


def beside(stream: Iterator[Message], id: str) -> dict[str, LexborNode]:
    """Read on until an element is brought, and return all that came in the same message."""
    until = time.monotonic() + PATIENCE
    for message in stream:
        assert time.monotonic() < until, f"nothing was heard of {id}"
        if id in message.parts:
            return message.parts
    raise AssertionError(f"the stream ended without {id}")
