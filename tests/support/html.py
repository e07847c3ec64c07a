"""Pages taken apart by selectors."""

from collections.abc import Callable

from selectolax.lexbor import LexborHTMLParser, LexborNode

type GetPage = Callable[..., LexborHTMLParser]  # address, then headers by name


HTMX = {"HX-Request": "true"}


def parse_html(answer: object) -> LexborHTMLParser:
    """An answer of Django's client or of httpx, taken apart."""
    return LexborHTMLParser(answer.content.decode())  # type: ignore[attr-defined]


def one(html: LexborHTMLParser | LexborNode, selector: str) -> LexborNode:
    """The one element that a selector finds."""
    found = html.css(selector)
    assert len(found) == 1, f"{selector}: {len(found)} found"
    return found[0]


def words(node: LexborNode | LexborHTMLParser) -> str:
    """The text of an element, its white space folded."""
    return " ".join(node.text().split())
