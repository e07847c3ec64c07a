"""The API's errors: raised anywhere in answering a request, and sent as its answer."""

from typing import NoReturn


class ApiError(Exception):
    """An error response with a status and the API's error body."""

    def __init__(self, status: int, message: str, details: object = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details


def not_found(what: str) -> NoReturn:
    raise ApiError(404, f"{what} not found")


class NoAccess(ApiError):
    """A missing permission: a 403, or the 404 of the hidden object, depending on a choice."""

    def __init__(self, message: str, hidden: str) -> None:
        super().__init__(403, f"Missing permission: {message}")
        self.hidden = hidden


class RateLimited(ApiError):
    """A 429; `retry_after` is in seconds, "" if the answer has none."""

    def __init__(self, retry_after: str = "", *, exhausts_window: bool = False) -> None:
        super().__init__(429, "Rate limit exceeded")
        self.retry_after = retry_after
        self.exhausts_window = exhausts_window
