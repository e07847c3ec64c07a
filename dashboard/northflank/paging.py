"""Lists of several pages, and the spelling of a stage: what takes more than one call."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from dashboard.northflank.client import NorthflankClient
from dashboard.northflank.errors import NotFound
from dashboard.northflank.models import Page, ReleaseFlow


class Identified(Protocol):
    """Anything listed: it has an id."""

    @property
    def id(self) -> str: ...


async def drain[T: Identified](
    fetch_page: Callable[[str | None], Awaitable[Page[T]]], *, max_pages: int = 50
) -> Page[T]:
    """Return all pages as one: their items, each id once, in the order they came.

    Stops early, with what it has, at `max_pages`, at a cursor it has seen, and at a page that
    repeats what is known: a server that counts wrong must not use up the hour's requests. What it
    returns then says that there is a next page.
    """
    items: dict[str, T] = {}
    seen: set[str] = set()
    cursor: str | None = None
    left_out = surplus = 0
    has_next = False
    for _ in range(max_pages):
        page = await fetch_page(cursor)
        known = len(items)
        left_out += page.left_out
        surplus += page.surplus
        has_next = page.has_next
        for item in page.items:
            items.setdefault(item.id, item)
        repeats = bool(page.items) and len(items) == known
        cursor = page.cursor
        if not page.has_next or cursor is None or cursor in seen or repeats:
            break
        seen.add(cursor)
    return Page(tuple(items.values()), has_next, None, left_out, surplus)


async def find_release_flow(
    client: NorthflankClient,
    project_id: str,
    pipeline_id: str,
    stage: str,
    *,
    prefer_capitalised: bool = False,
) -> tuple[ReleaseFlow, str] | None:
    """Return a stage's release flow and the spelling of the stage that worked; None: no flow.

    No source says whether the path takes `development` or `Development`: on 404 the other is tried.
    """
    spellings = [stage.lower(), stage.capitalize()]
    if prefer_capitalised:
        spellings.reverse()
    for spelling in spellings:
        try:
            return await client.release_flow(project_id, pipeline_id, spelling), spelling
        except NotFound:
            continue
    return None
