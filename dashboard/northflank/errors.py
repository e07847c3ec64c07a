"""What can go wrong with a request to Northflank, as one tree of exceptions.

The values of `cause` are stable, short, fit for storing and for metrics.
Messages are fit for a user: they contain neither the token nor a secret of a URL.
"""

from typing import ClassVar


class NorthflankError(Exception):
    """A request to Northflank failed."""

    default_cause: ClassVar[str] = "unexpected_response"

    def __init__(
        self,
        message: str,
        *,
        cause: str | None = None,
        http_status: int | None = None,
        error_id: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.cause = cause or self.default_cause
        self.http_status = http_status
        self.error_id = error_id  # Northflank's own, for its support
        self.retry_after_seconds = retry_after_seconds


class Unreachable(NorthflankError):
    """No response came (unreachable, timeout).

    `may_have_arrived` is False where the connection never opened: nothing can have happened. It is
    True where it broke or timed out after sending began: the outcome is unknown.
    """

    default_cause = "unreachable"

    def __init__(self, message: str, *, may_have_arrived: bool, cause: str | None = None) -> None:
        super().__init__(message, cause=cause)
        self.may_have_arrived = may_have_arrived


class AccessDenied(NorthflankError):
    """401: a bad token (unauthorised), or feature_off; 403: a missing permission (forbidden)."""

    default_cause = "forbidden"


class NotFound(NorthflankError):
    """404 in Northflank's own form: the object does not exist, or this token may not see it.

    `http_status` is None where nothing was sent because the id is not a valid one.
    """

    default_cause = "not_found"


class RequestRejected(NorthflankError):
    """Any other 4xx: Northflank refused the request in the current state of the object."""

    default_cause = "rejected"


class RateLimited(NorthflankError):
    """429: too many requests; wait `retry_after_seconds`, where Northflank sent it."""

    default_cause = "rate_limited"


class ServerError(NorthflankError):
    """5xx: an error inside Northflank, or in a proxy before it."""

    default_cause = "server_error"


class UnexpectedResponse(NorthflankError):
    """A response that is too large, not decodable or not as documented."""
