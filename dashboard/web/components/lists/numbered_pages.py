"""Lists in pages with numbers, for lists whose order does not change while they are read."""

from typing import Any
from urllib.parse import urlencode

from django.core.paginator import Paginator
from django.db.models import Model, QuerySet

PER_PAGE = 50


def load[M: Model](
    records: QuerySet[M], number: str | None, parameters: dict[str, str]
) -> dict[str, Any]:
    """Return a page of `records` with the addresses of its neighbours, as template context.

    `parameters` are those of the list's filter; an invalid number gets the nearest page.
    """
    page = Paginator(records, PER_PAGE).get_page(number)

    def url(other: int) -> str:
        values = {**parameters, "page": str(other)}
        return f"?{urlencode({name: value for name, value in values.items() if value})}"

    return {
        "page": page,
        "previous_url": url(page.number - 1) if page.has_previous() else "",
        "next_url": url(page.number + 1) if page.has_next() else "",
    }
