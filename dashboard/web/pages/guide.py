"""Help: guides of docs/, rendered by the dashboard itself, so that it needs no internet."""

import re
from functools import cache
from itertools import pairwise
from pathlib import PurePath
from typing import NamedTuple

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_safe
from markdown_it import MarkdownIt
from markdown_it.token import Token

from dashboard.web.api import reference

# By name, in the order of the help: folder and file.
FILES = {name: f"use/{name}.md" for name in ("guide", "overdue", "alerts")} | {
    "api": "build/api.md"
}
_FOLDER = settings.BASE_DIR / "docs"
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


class Guide(NamedTuple):
    """A guide with its title and, as HTML, its text without that."""

    name: str
    title: str
    html: SafeString


@require_safe
def guide(request: HttpRequest, name: str) -> HttpResponse:
    """Show a guide; without a name redirect to the first."""
    if not name:
        return redirect("guide", next(iter(FILES)))
    if name not in FILES:
        raise Http404
    context = {"guide": _load(name), "guides": [_load(each) for each in FILES]}
    if name == "api":
        context |= reference.context()
    return render(request, "pages/guide.html", context)


@require_safe
def guide_picture(request: HttpRequest, picture: str) -> HttpResponse:
    """Return a picture of docs/images/; its name is a slug, thus no path."""
    path = settings.BASE_DIR / "docs" / "images" / f"{picture}.png"
    try:
        return HttpResponse(path.read_bytes(), content_type="image/png")
    except OSError as error:  # there is no such file, or its name is too long for one
        raise Http404 from error


@cache
def _load(name: str) -> Guide:
    """Return a guide by its name, which is one of FILES."""
    tokens = _MARKDOWN.parse((_FOLDER / FILES[name]).read_text(encoding="utf-8"))
    for token, following in pairwise(tokens):
        if token.type == "heading_open":  # the anchors of code hosts
            anchor = re.sub(r"[^\w\- ]", "", following.content.lower()).replace(" ", "-")
            token.attrSet("id", anchor)
        elif token.type == "th_open":
            token.attrSet("scope", "col")
        for child in token.children or ():
            if child.type == "link_open":
                _relink(child)
    html = _MARKDOWN.renderer.render(tokens[3:], _MARKDOWN.options, {})  # without the heading
    return Guide(name, tokens[1].content, mark_safe(html))  # noqa: S308  # our own text, escaped


def _relink(link: Token) -> None:
    """Point a link between guides to their pages; one to other documents leads nowhere here."""
    href = str(link.attrs["href"])
    path, hash_sign, anchor = href.partition("#")
    if (name := PurePath(path).stem) in FILES:
        link.attrSet("href", f"../{name}/{hash_sign}{anchor}")
    elif path and "://" not in href:
        del link.attrs["href"]
