"""Lists of several pages, and the spelling of a stage: what takes more than one call."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from dashboard.northflank.client import NorthflankClient
from dashboard.northflank.errors import NotFound
from dashboard.northflank.models import Page, ReleaseFlow


class HasId(Protocol):
    """Anything listed: it has an id."""

    @property
    def id(self) -> str: ...


async def fetch_all_pages[T: HasId](
    fetch_page: Callable[[str | None], Awaitable[Page[T]]], *, max_pages: int = 50
) -> Page[T]:
    """Return all pages as one: their items, each id once, in the order they came.

    Stops early, with what it has, at `max_pages`, at a cursor it has seen, and at a page that
    repeats what is known: a server that counts wrong must not use up the hour's requests. What it
    returns then says that there is a next page.
    """
    items: dict[str, T] = {}
    previous_cursors: set[str] = set()
    cursor: str | None = None
    unreadable_count = surplus_count = 0
    has_next = False
    for _ in range(max_pages):
        page = await fetch_page(cursor)
        count_before = len(items)
        unreadable_count += page.unreadable_count
        surplus_count += page.surplus_count
        has_next = page.has_next
        for item in page.items:
            items.setdefault(item.id, item)
        is_repeated = bool(page.items) and len(items) == count_before
        cursor = page.cursor
        if not page.has_next or cursor is None or cursor in previous_cursors or is_repeated:
            break
        previous_cursors.add(cursor)
    return Page(tuple(items.values()), has_next, None, unreadable_count, surplus_count)


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
            return await client.get_release_flow(project_id, pipeline_id, spelling), spelling
        except NotFound:
            continue
    return None
