"""Automated WCAG 2.2 AA checks of a page in its current state."""

from collections.abc import Iterator
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.support.browser import check

type Options = dict[str, object]

ALL_RULES: Options = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "rules": {"target-size": {"enabled": True}},
    "resultTypes": ["violations"],
}
# Those that measure boxes or colours, or are about parts that one of the widths hides, or lays out
# in another way. The rest is about markup that both display.
WIDTH_RULES: Options = {
    "runOnly": [
        *("color-contrast", "link-in-text-block", "scrollable-region-focusable", "target-size"),
        *("button-name", "label", "link-name", "nested-interactive", "select-name", "summary-name"),
        *("empty-table-header", "scope-attr-valid", "td-headers-attr", "th-has-data-cells"),
    ],
    "resultTypes": ["violations"],
}
# A page has few colours and thousands of texts, for each of which axe parses the same ones anew.
PARSE_COLOURS_ONCE = """
  const { prototype } = axe.commons.color.Color;
  const { parseString } = prototype;
  const parsed = new Map();
  prototype.parseString = function (text) {
    if (parsed.has(text)) return Object.assign(this, parsed.get(text));
    const { r, g, b, alpha } = parseString.call(this, text);
    parsed.set(text, { r, g, b, alpha });
    return this;
  };
"""
AXE = f"() => {{ {Axe().axe_script}; {PARSE_COLOURS_ONCE} }}"


def violations(page: Page, options: Options = ALL_RULES) -> list[str]:
    """The violations that axe finds in a page's current state."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE)
    results = page.evaluate("rules => axe.run(rules).then(({ violations }) => violations)", options)
    return [
        f"{violation['id']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for violation in results
        for node in violation["nodes"]
    ]


def find_complaints(page: Page, number: int) -> Iterator[tuple[str, list[str]]]:
    """Yield each check's name with its complaints, by size and color scheme.

    Each width has one of the schemes, the other one in the state of the next `number`, and one of
    the widths all rules, the other one in the state after the next one.
    """
    yield "structure", check(page, "structure")
    schemes: list[Literal["dark", "light"]] = ["dark", "light"]
    rules = [ALL_RULES, WIDTH_RULES]
    for width, scheme, options in zip(
        (390, 1280),
        schemes[:: 1 if number % 2 else -1],
        rules[:: 1 if number // 2 % 2 else -1],
        strict=True,
    ):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        yield f"axe, {width} px, {scheme}", violations(page, options)
    page.emulate_media(forced_colors="active", color_scheme="light")
    yield "forced colours", check(page, "forcedColors")
    page.emulate_media(forced_colors="none")
    yield from find_narrow_layout_complaints(page, "horizontalOverflow", "truncatedText")


def find_narrow_layout_complaints(page: Page, *checks: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the complaints at a phone's width, and at 1280 pixels with 200 % zoom."""
    for width in (640, 320):  # the browsers here have two pixels in one of CSS
        page.set_viewport_size({"width": width, "height": 700})
        for name in checks:
            yield f"{name}, {width} px", check(page, name)
    page.set_viewport_size({"width": 1280, "height": 800})
