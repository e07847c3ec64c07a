"""Select elements of pages."""

import json
from collections.abc import Callable

from django.test import Client
from selectolax.lexbor import LexborHTMLParser, LexborNode

type GetPage = Callable[..., LexborHTMLParser]  # URL, then headers by name


HTMX = {"HX-Request": "true"}


def parse_html(answer: object) -> LexborHTMLParser:
    """Parse a response of Django's client or of httpx."""
    return LexborHTMLParser(answer.content.decode())  # type: ignore[attr-defined]


def select_one(html: LexborHTMLParser | LexborNode, selector: str) -> LexborNode:
    """Return the only element that matches a selector."""
    matches = html.css(selector)
    assert len(matches) == 1, f"{selector}: {len(matches)} found"
    return matches[0]


def live_tag(html: LexborHTMLParser) -> str:
    """Return the tag of a page's live region."""
    headers = json.loads(select_one(html, "#live").attributes["hx-headers"] or "")
    return str(headers["HX-PTag"])


def text_of(node: LexborNode | LexborHTMLParser) -> str:
    """Return the text of an element, with white space collapsed."""
    return " ".join(node.text().split())


def fetch_page(client: Client, address: str) -> LexborHTMLParser:
    """Return a page that answers 200, parsed."""
    answer = client.get(address)
    assert answer.status_code == 200
    return parse_html(answer)
