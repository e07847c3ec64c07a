"""The help: the guides of docs/use/ as pages."""

import re
from urllib.parse import urljoin

from django.conf import settings
from django.test import Client

from dashboard.web.pages.guide import NAMES
from tests.support.html import parse_html, select_one, text_of


def test_help_has_every_guide_and_its_links_and_pictures_open(viewer_client: Client) -> None:
    files = {path.stem for path in (settings.BASE_DIR / "docs" / "use").glob("*.md")}
    assert files == set(NAMES)
    footer = select_one(parse_html(viewer_client.get("/")), "footer a")
    start = viewer_client.get(str(footer.attributes["href"]), follow=True)
    assert start.redirect_chain == [("/help/guide/", 302)]
    pages = {f"/help/{name}/": parse_html(viewer_client.get(f"/help/{name}/")) for name in NAMES}
    sources = set()
    for address, page in pages.items():
        assert text_of(select_one(page, "h1")).startswith("Help: ")
        sources |= {urljoin(address, str(img.attributes["src"])) for img in page.css("article img")}
        for link in page.css("article a[href]"):
            target, _, anchor = urljoin(address, str(link.attributes["href"])).partition("#")
            if not re.match(r"https?:", target):
                assert pages[target].css(f"#{anchor}" if anchor else "h1"), (
                    address,
                    target,
                    anchor,
                )
    assert sources
    for source in sources:
        assert viewer_client.get(source).headers["Content-Type"] == "image/png"
    assert viewer_client.get("/help/nothing/").status_code == 404
    assert viewer_client.get("/help/images/nothing.png").status_code == 404
