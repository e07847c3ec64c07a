"""The help: guides of docs/ as pages, that of the API with its OpenAPI document."""

import re
from urllib.parse import urljoin

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from dashboard.models import Run
from dashboard.web.api import openapi
from dashboard.web.components import help_links
from dashboard.web.http.responses.json_responses import ERRORS
from dashboard.web.pages.guide import FILES
from tests.support import factories
from tests.support.abort_kinds import FIELDS_BY_KIND
from tests.support.html import parse_html, select_one, text_of


def test_help_has_every_guide_and_its_links_and_pictures_open(viewer_client: Client) -> None:
    files = {path.stem for path in (settings.BASE_DIR / "docs" / "use").glob("*.md")}
    assert {*files, "api"} == set(FILES)
    footer = select_one(parse_html(viewer_client.get("/")), "footer a")
    start = viewer_client.get(str(footer.attributes["href"]), follow=True)
    assert start.redirect_chain == [("/help/guide/", 302)]
    pages = {f"/help/{name}/": parse_html(viewer_client.get(f"/help/{name}/")) for name in FILES}
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
    for name in ("nothing", "a" * 252):  # the second is too long for a file
        assert viewer_client.get(f"/help/images/{name}.png").status_code == 404


@pytest.mark.usefixtures("superuser")
@pytest.mark.parametrize(
    ("username", "address", "sections"),
    [
        ("viewer", "/", {"overdue", "permissions"}),
        ("viewer", "run", {"overdue", "acknowledge", "abort_messages", "permissions"}),
        ("manager", "run", {"overdue", "acknowledge", "abort_messages"}),
        ("manager", "abort", {"abort"}),
        ("manager", "/aborts/", {"abort_messages"}),
        ("manager", "/health/", {"requests"}),
        ("manager", "/account/", {"permissions", "api"}),
        ("root", "/people/groups/", {"permissions"}),
        ("root", "/people/rights/", {"permissions"}),
    ],
)
def test_screen_links_once_to_the_section_about_each_of_its_notions(
    client: Client,
    run: Run,
    manager: User,
    viewer: User,
    username: str,
    address: str,
    sections: set[str],
) -> None:
    factories.change(run, overdue_severity=2)
    factories.abort(run, manager, **FIELDS_BY_KIND["refused"])
    client.force_login(User.objects.get(username=username))
    address = {"run": factories.address(run), "abort": factories.address(run, "abort")}.get(
        address, address
    )
    links = [link.attributes["href"] or "" for link in parse_html(client.get(address)).css(".help")]
    expected = {help_links.SECTIONS[name][:2] for name in sections}
    assert sorted(links) == sorted(f"/help/{guide}/#{anchor}" for guide, anchor in expected)
    for link in links:
        page, _, anchor = link.partition("#")
        assert select_one(parse_html(client.get(page)), f"#{anchor}")


def test_help_about_the_api_has_every_call_type_and_code(viewer_client: Client) -> None:
    page = parse_html(viewer_client.get("/help/api/"))
    texts = {text_of(code) for code in page.css("h3 code, th code")}
    document = openapi.document()
    calls = {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert calls | {*ERRORS} <= texts
    for name, schema in document["components"]["schemas"].items():
        assert select_one(page, f"#type-{name}")
        assert {*schema["properties"]} <= texts
