"""The API's errors: raised anywhere in answering a request, and sent as its answer."""

from collections.abc import Mapping
from typing import NoReturn


class ApiError(Exception):
    """An error response with a status and the API's error body."""

    def __init__(
        self,
        status: int,
        message: str,
        details: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details
        self.headers = headers


class NoAccess(ApiError):
    """A missing permission: a 403, or the 404 of what is hidden, depending on a choice."""

    def __init__(self, hidden: str) -> None:
        super().__init__(403, "Missing permission: Project > Pipelines > General > Read")
        self.hidden = hidden


def not_found(what: str) -> NoReturn:
    raise ApiError(404, f"{what} not found")
