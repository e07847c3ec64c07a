"""One call of the API: what was asked, what is answered, and how lists are cut into pages."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .options import Choices

type Json = dict[str, Any]

PER_PAGE = 50
MAX_PER_PAGE = 100


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    """As it came, still percent-encoded."""
    params: Mapping[str, str]
    """The values in the path, decoded."""
    query: Mapping[str, str]
    body: bytes
    now: float


@dataclass
class Answer:
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


def page[T](
    items: Iterable[T],
    call: Call,
    choices: Choices,
    *,
    key: str,
    id_of: Callable[[T], str],
    form: Callable[[T], Json],
    keep: Callable[[T], bool] = lambda _: True,
) -> Json:
    """Answer with the page of a list that the call asks for.

    The cursor names the last item of a page rather than a position, so that runs created in
    between move nothing. It is looked up before filtering: the item may have changed meanwhile
    and no longer match.
    """
    per_page = _per_page(call, choices)
    number = _positive(call, "page", 1)
    rest = iter(items)
    if cursor := call.query.get("cursor"):
        # `page` together with `cursor` is undocumented; the cursor wins.
        if not any(f"after-{id_of(item)}" == cursor for item in rest):
            raise ApiError(400, "Invalid cursor", {"cursor": ["is unknown or has expired"]})
        number = 1
    matching = (item for item in rest if keep(item))
    begin = (number - 1) * per_page
    found = list(itertools.islice(matching, begin, begin + per_page + 1))
    shown = found[:per_page]
    pagination: Json = {"hasNextPage": len(found) > per_page, "count": len(shown)}
    if pagination["hasNextPage"]:
        pagination["cursor"] = f"after-{id_of(shown[-1])}"
    elif choices["last-cursor"] != "omitted":
        pagination["cursor"] = None if choices["last-cursor"] == "null" else ""
    return {"data": {key: [form(item) for item in shown]}, "pagination": pagination}


def _per_page(call: Call, choices: Choices) -> int:
    wanted = _positive(call, "per_page", PER_PAGE)
    if wanted > MAX_PER_PAGE and choices["per-page-over-100"] == "400":
        raise ApiError(400, "Invalid query", {"per_page": [f"must be at most {MAX_PER_PAGE}"]})
    return min(wanted, MAX_PER_PAGE)


def _positive(call: Call, name: str, default: int) -> int:
    text = call.query.get(name)
    if text is None:
        return default
    # At most nine digits: more is nonsense, and Python refuses to read thousands of them.
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise ApiError(400, "Invalid query", {name: ["must be a positive whole number"]})
    return int(text)
