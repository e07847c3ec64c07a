"""The API's errors: raised anywhere in answering a request, and sent as its answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn


@dataclass(eq=False)
class ApiError(Exception):
    """An error response with a status and the API's error body."""

    status: int
    message: str
    details: object = None
    headers: Mapping[str, str] | None = None


NO_ACCESS = "Missing permission: Project > Pipelines > General > Read"


def not_found(what: str) -> NoReturn:
    raise ApiError(404, f"{what} not found")
