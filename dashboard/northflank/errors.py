"""Why Northflank could not be asked, or did not do as asked: an exception tree told by cause.

NorthflankError
├── Unreachable         no answer at all              unreachable, timeout
├── Refused             401, 403                      unauthorised, feature_off, forbidden
├── NotFound            404 in Northflank's own form  not_found
├── Rejected            400, 409, 422, any other 4xx  refused
├── RateLimited         429                           rate_limited
├── ServerError         5xx                           server_error
└── UnexpectedAnswer    an answer we cannot read      unexpected_answer

The words at the right are the values of `cause`: stable, short, fit for storing and for metrics.
Messages are fit for a user. They hold neither the token nor a URL's secrets nor upstream HTML.
"""

from typing import ClassVar


class NorthflankError(Exception):
    """Anything that went wrong between us and Northflank."""

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
        self.message = message
        self.cause = cause or self.default_cause
        self.http_status = http_status
        self.error_id = error_id  # Northflank's own, worth quoting to its support
        self.retry_after_seconds = retry_after_seconds


class Unreachable(NorthflankError):
    """No answer came. `sent` tells whether the request may have arrived nevertheless.

    False: the connection never opened, so nothing can have happened. True: it broke or timed out
    after we began to send, so the outcome is unknown.
    """

    default_cause = "unreachable"

    def __init__(self, message: str, *, may_have_arrived: bool, cause: str | None = None) -> None:
        super().__init__(message, cause=cause)
        self.may_have_arrived = may_have_arrived


class AccessDenied(NorthflankError):
    """We may not: a bad token (unauthorised), a feature that is off, or a missing permission."""

    default_cause = "forbidden"


class NotFound(NorthflankError):
    """Northflank knows no such thing, or hides it from this token.

    Without a status where it was not asked, since what was given cannot be an id.
    """

    default_cause = "not_found"


class RequestRejected(NorthflankError):
    """Northflank understood, and will not do it as things stand."""

    default_cause = "rejected"


class RateLimited(NorthflankError):
    """Too many requests; `reset_seconds` until there may be more, if it was told."""

    default_cause = "rate_limited"


class ServerError(NorthflankError):
    """Northflank, or a proxy before it, has failed."""

    default_cause = "server_error"


class UnexpectedResponse(NorthflankError):
    """An answer that is too large, cannot be decoded, or has another shape than documented."""

    default_cause = "unexpected_response"

    @property
    def is_success(self) -> bool:
        """Say whether it was a 2xx: done as asked, and only what it says cannot be read."""
        return self.http_status is not None and 200 <= self.http_status < 300
