"""One call of the API: what was asked, what is answered, and how lists are cut into pages."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .options import Choices

type Json = dict[str, Any]

DEFAULT_PER_PAGE = 50
MAX_PER_PAGE = 100


@dataclass(frozen=True)
class ApiRequest:
    method: str
    path: str
    """As it came, still percent-encoded."""
    params: Mapping[str, str]
    """The values in the path, decoded."""
    query: Mapping[str, str]
    body: bytes
    now: float


@dataclass
class ApiResponse:
    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


class ApiError(Exception):
    """Answered with a status and the API's error body."""

    def __init__(self, status: int, message: str, details: object = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details


def paginate[T](
    items: Iterable[T],
    request: ApiRequest,
    choices: Choices,
    *,
    key: str,
    get_id: Callable[[T], str],
    serialize: Callable[[T], Json],
    matches: Callable[[T], bool] = lambda _: True,
) -> Json:
    """Answer with the page of a list that the call asks for.

    The cursor names the last item of a page rather than a position, so that runs created in
    between move nothing. It is looked up before filtering: the item may have changed meanwhile
    and no longer match.
    """
    per_page = _parse_per_page(request, choices)
    page_number = _parse_positive(request, "page", 1)
    remaining = iter(items)
    if cursor := request.query.get("cursor"):
        # `page` together with `cursor` is undocumented; the cursor wins.
        if not any(f"after-{get_id(item)}" == cursor for item in remaining):
            raise ApiError(400, "Invalid cursor", {"cursor": ["is unknown or has expired"]})
        page_number = 1
    matching = (item for item in remaining if matches(item))
    start = (page_number - 1) * per_page
    candidates = list(itertools.islice(matching, start, start + per_page + 1))
    page_items = candidates[:per_page]
    pagination: Json = {"hasNextPage": len(candidates) > per_page, "count": len(page_items)}
    if pagination["hasNextPage"]:
        pagination["cursor"] = f"after-{get_id(page_items[-1])}"
    elif choices["last-cursor"] != "omitted":
        pagination["cursor"] = None if choices["last-cursor"] == "null" else ""
    return {"data": {key: [serialize(item) for item in page_items]}, "pagination": pagination}


def _parse_per_page(request: ApiRequest, choices: Choices) -> int:
    per_page = _parse_positive(request, "per_page", DEFAULT_PER_PAGE)
    if per_page > MAX_PER_PAGE and choices["per-page-over-100"] == "400":
        raise ApiError(400, "Invalid query", {"per_page": [f"must be at most {MAX_PER_PAGE}"]})
    return min(per_page, MAX_PER_PAGE)


def _parse_positive(request: ApiRequest, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    # At most nine digits: more is nonsense, and Python refuses to read thousands of them.
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise ApiError(400, "Invalid query", {name: ["must be a positive whole number"]})
    return int(text)
