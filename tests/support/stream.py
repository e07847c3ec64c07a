"""Event streams, read as a browser does."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from selectolax.lexbor import LexborHTMLParser, LexborNode

from dashboard.models import ChangeCounter
from tests.support.live import WAIT_TIMEOUT

# For tests of changes that send no notification: a broadcaster with a short poll interval.
fast_polling = pytest.mark.parametrize("poll_interval", [0.2], ids=["brisk"])


@dataclass
class Message:
    event: str = ""
    data: list[str] = field(default_factory=list)
    id: str = ""

    @property
    def parts(self) -> dict[str, LexborNode]:
        """The elements in the message, by id."""
        markup = "\n".join(self.data)
        # The parser drops rows and cells outside a table; here only their text matters.
        html = LexborHTMLParser(markup.replace("<tr", "<div").replace("<td", "<div"))
        return {(part.attributes["hx-target"] or "")[1:]: part for part in html.css("hx-partial")}


def messages(answer: httpx.Response) -> Iterator[Message]:
    """Yield the messages of an event stream."""
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
    client: httpx.Client, page: str = "now", key: int = 0, since: int | None = None, **headers: str
) -> Iterator[Iterator[Message]]:
    """Open a page's stream as the user of `client`, after its first message."""
    version = ChangeCounter.latest() if since is None else since
    address = f"/live/?page={page}&key={key}&since={version}"
    with client.stream("GET", address, headers=headers, timeout=WAIT_TIMEOUT) as answer:
        assert answer.status_code == 200
        stream = messages(answer)
        first_message = next(stream)
        assert "data-age" in first_message.parts
        yield stream


def stream_address(client: httpx.Client, page: str = "/") -> str:
    """Load a page; return the address of its stream."""
    stream = LexborHTMLParser(client.get(page).text).css_first("#stream")
    assert stream is not None
    return stream.attributes["hx-sse:connect"] or ""


def next_part(
    stream: Iterator[Message], id: str, text: str = "", *, selector: str = "*"
) -> LexborNode:
    """Return the next element with this id that contains `text` and what `selector` selects.

    A round that began before a change may send the part as it was.
    """
    deadline = time.monotonic() + WAIT_TIMEOUT
    for message in stream:
        assert time.monotonic() < deadline, f"no message contained {id}"
        part = message.parts.get(id)
        if part is not None and text in part.text() and part.css_matches(selector):
            return part
    raise AssertionError(f"the stream ended without {id}")


def next_parts(stream: Iterator[Message], id: str, text: str = "") -> dict[str, LexborNode]:
    """Return all elements of the next message with an element with this id that contains `text`.

    A round that began before a change may send the parts as they were.
    """
    deadline = time.monotonic() + WAIT_TIMEOUT
    for message in stream:
        assert time.monotonic() < deadline, f"no message contained {id}"
        part = message.parts.get(id)
        if part is not None and text in part.text():
            return message.parts
    raise AssertionError(f"the stream ended without {id}")
