"""HTTP of the API: requests, responses, errors, pagination, and the rate limit."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

type Json = dict[str, Any]

DEFAULT_PER_PAGE = 50
MAX_PER_PAGE = 100


@dataclass(frozen=True)
class ApiRequest:
    method: str
    path: str
    """As received, still percent-encoded."""
    params: Mapping[str, str]
    """The path's parameters, decoded."""
    query: Mapping[str, str]
    body: bytes
    now: float


@dataclass
class ApiResponse:
    status: int
    body: Any


class ApiError(Exception):
    """An error response with a status and the API's error body."""

    def __init__(self, status: int, message: str, details: object = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details


class NoAccess(ApiError):
    """A missing permission: a 403, or the 404 of the hidden object, depending on a choice."""

    def __init__(self, message: str, hidden: str) -> None:
        super().__init__(403, f"Missing permission: {message}")
        self.not_found = ApiError(404, f"{hidden} not found")


def paginate[T](
    items: Iterable[T],
    request: ApiRequest,
    last_cursor: str,
    *,
    key: str,
    get_id: Callable[[T], str],
    serialize: Callable[[T], Json],
    matches: Callable[[T], bool] = lambda _: True,
) -> Json:
    """Return the requested page of a list; `last_cursor` is the value of the choice of that name.

    The cursor refers to the last item of a page, not to a position, so that runs created in between
    shift nothing. It is looked up before filtering, since the item may have changed and no longer
    match.
    """
    per_page = min(_parse_positive(request, "per_page", DEFAULT_PER_PAGE), MAX_PER_PAGE)
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
    elif last_cursor != "omitted":
        pagination["cursor"] = None if last_cursor == "null" else ""
    return {"data": {key: [serialize(item) for item in page_items]}, "pagination": pagination}


def _parse_positive(request: ApiRequest, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    # At most nine digits: larger numbers are invalid, and Python refuses to parse thousands of
    # digits.
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise ApiError(400, "Invalid query", {name: ["must be a positive whole number"]})
    return int(text)


@dataclass
class RateLimitWindow:
    """The rate limit: a fixed window that the first request opens."""

    limit: int
    seconds: float
    opened_at: float | None = None
    request_count: int = 0

    def count_request(self, now: float) -> bool:
        """Count a request and return whether it is within the limit."""
        if self.opened_at is None or not 0 <= now - self.opened_at < self.seconds:
            self.opened_at, self.request_count = now, 0
        self.request_count += 1
        return self.request_count <= self.limit

    def exhaust(self) -> None:
        self.request_count = max(self.request_count, self.limit)

    def seconds_until_reset(self, now: float) -> int:
        """Return the seconds until the window ends, rounded up."""
        if self.opened_at is None:
            return math.ceil(self.seconds)
        return max(0, math.ceil(self.opened_at + self.seconds - now))

    def headers(self, now: float) -> dict[str, str]:
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(max(0, self.limit - self.request_count)),
            "x-ratelimit-reset": str(self.seconds_until_reset(now)),
        }
