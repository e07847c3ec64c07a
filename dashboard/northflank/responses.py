"""Turn a response into decoded JSON and its rate limit, or into an exception. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from dashboard.northflank.errors import (
    AccessDenied,
    NorthflankError,
    NotFound,
    RateLimited,
    RequestRejected,
    ServerError,
    UnexpectedResponse,
)
from dashboard.northflank.secrets_in_texts import redact_secrets
from dashboard.northflank.values import as_object, as_text

_MAX_MESSAGE_LENGTH = 300
_MAX_ERROR_ID_LENGTH = 100
_MAX_RETRY_AFTER_SECONDS = 3600.0
# The window is an hour. A "reset" beyond a week is not the seconds it is documented to be (a Unix
# time, say); believing it would stop all requests for years.
_MAX_RESET_SECONDS = 7 * 24 * 3600
# Northflank documents a limit of 1000. A limit of 0, believed, would stop all reading, and with it
# the answers that could correct it; one far beyond any account's does not even fit the database.
_MIN_LIMIT, _MAX_LIMIT = 1, 1_000_000  # requests in a window
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
# A 401 is also the answer for a feature that is not enabled: no proof of a bad token.
_FEATURE = re.compile(r"\bfeatures?\b|\bnot enabled\b", re.IGNORECASE)

type _ErrorKind = tuple[type[NorthflankError], str | None, str]
# Exception, its cause if not the default one, and its text.
_ERRORS: dict[str, _ErrorKind] = {
    "feature": (AccessDenied, "feature_off", "This feature is not enabled for the account"),
    "401": (AccessDenied, "unauthorised", "Northflank rejected the API token"),
    "403": (AccessDenied, None, "The API token lacks permission"),
    "404": (NotFound, None, "Not found on Northflank"),
    "proxy": (UnexpectedResponse, None, "Unexpected response, probably from a proxy"),
    "429": (RateLimited, None, "Northflank rate limit reached"),
    "4xx": (RequestRejected, None, "Northflank refused"),
    "5xx": (ServerError, None, "Northflank server error"),
    "other": (UnexpectedResponse, None, "Unexpected response from Northflank"),
}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The account's rate limit, as of one response."""

    limit: int  # requests in a window
    remaining: int  # requests left in this window
    reset_seconds: float  # from the response until the window ends


def decode(status: int, headers: Mapping[str, str], body: bytes, *, token: str = "") -> object:
    """Return the JSON of a 2xx response; raises the NorthflankError for any other.

    `token` is removed from error messages, should Northflank quote it.
    """
    if not 200 <= status < 300:
        raise _error_from_response(status, headers, body, token)
    if not body.strip():
        raise unexpected("empty body", status)
    try:
        return load_json(body)
    except ValueError:
        raise unexpected("not JSON, perhaps from a proxy", status) from None
    except RecursionError:
        raise unexpected("nested too deeply", status) from None


def load_json(body: bytes) -> object:
    """Return decoded JSON; raises ValueError, or RecursionError for one nested too deeply."""
    # The standard parser, because it lets lone surrogates pass: one hostile name must not cost us
    # the page. They are replaced when texts are decoded.
    return json.loads(body.decode("utf-8-sig", errors="replace"))


def unwrap(payload: object, status: int) -> object:
    """Return the `data` of a response; raises UnexpectedResponse where there is none."""
    if isinstance(payload, dict) and isinstance(data := payload.get("data"), dict | list):
        return data
    raise unexpected("no data", status)


def unexpected(problem: str, status: int) -> UnexpectedResponse:
    """Return the exception for a response that cannot be used."""
    message = f"Unexpected response from Northflank: {problem}."
    return UnexpectedResponse(message, http_status=status)


def parse_rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Return the rate limit in a response's headers; None where they are incomplete or implausible.

    Documented at https://northflank.com/docs/v1/api/use-the-api
    """
    headers = _lowercase_names(headers)
    limit = _parse_number(headers.get("x-ratelimit-limit"))
    remaining = _parse_number(headers.get("x-ratelimit-remaining"))
    reset = _parse_number(headers.get("x-ratelimit-reset"))
    if limit is None or remaining is None or reset is None or reset > _MAX_RESET_SECONDS:
        return None
    rate_limit = RateLimit(int(limit), int(remaining), reset)
    if not _MIN_LIMIT <= rate_limit.limit <= _MAX_LIMIT:
        return None
    # Believing that more is left than the limit would spend the window long before its end.
    return rate_limit if rate_limit.remaining <= rate_limit.limit else None


def _lowercase_names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _parse_number(value: str | None) -> float | None:
    """Return a header's plain non-negative number, or None."""
    value = (value or "").strip()
    return float(value) if _NUMBER.fullmatch(value) else None


def _error_from_response(
    status: int, headers: Mapping[str, str], body: bytes, token: str
) -> NorthflankError:
    detail, error_id, is_northflank_error = _parse_error_body(body, token)
    kind = str(status)
    if status == 401 and _FEATURE.search(detail):
        kind = "feature"
    elif status == 404 and not is_northflank_error:
        kind = "proxy"  # it did not find Northflank; whether the object exists is unknown
    elif kind not in _ERRORS:
        kind = f"{status // 100}xx"
    error_class, cause, text = _ERRORS.get(kind, _ERRORS["other"])
    return error_class(
        f"{text} ({status}): {detail}" if detail else f"{text} ({status}).",
        cause=cause,
        http_status=status,
        error_id=error_id,
        retry_after_seconds=_retry_after_seconds(headers) if status == 429 else None,
    )


def _parse_error_body(body: bytes, token: str) -> tuple[str, str | None, bool]:
    """Return the message for a user, the error id, and whether the form is Northflank's own."""
    try:
        payload = load_json(body)
    except (ValueError, RecursionError):
        return "", None, False  # HTML or plain text of a proxy: nothing for a person to read
    fields = as_object(payload)
    error = fields.get("error")
    error_fields = as_object(error) or fields  # some servers leave the wrapper out
    error_id = error_fields.get("id", fields.get("id"))
    message = (
        as_text(error_fields.get("message"))
        or as_text(error)
        or as_text(fields.get("message"))
        or ""
    )
    if token:
        message = message.replace(token, "…")
    message = " ".join(redact_secrets(message).replace("\ufffd", " ").split())
    if message.startswith("<"):
        message = ""  # HTML inside JSON
    if len(message) > _MAX_MESSAGE_LENGTH:
        message = message[: _MAX_MESSAGE_LENGTH - 1] + "…"
    if isinstance(error_id, int) and not isinstance(error_id, bool) and error_id < 2**63:
        error_id = str(error_id)
    return (
        message,
        (as_text(error_id) or "")[:_MAX_ERROR_ID_LENGTH] or None,
        _is_northflank_error(fields),
    )


def _is_northflank_error(fields: dict[str, object]) -> bool:
    # As its clients read it: `error` around a message; or, in the form of an older description of
    # the API, a code beside the message. Proxies, too, answer in JSON.
    error_fields = as_object(fields.get("error"))
    if as_text(error_fields.get("message")) is not None:
        return True
    return as_text(fields.get("code")) is not None and as_text(fields.get("message")) is not None


def _retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait after a 429: `Retry-After`, else until the spent window ends.

    An hour at most: the window is no longer, and another request shows whether it is over.
    """
    seconds = _requested_wait(_lowercase_names(headers))
    return None if seconds is None else min(seconds, _MAX_RETRY_AFTER_SECONDS)


def _requested_wait(headers: dict[str, str]) -> float | None:
    # https://www.rfc-editor.org/rfc/rfc9110#field.retry-after: seconds, or an HTTP date
    retry_after = headers.get("retry-after")
    if (wait := _parse_number(retry_after)) is not None:
        return wait
    if retry_after is not None:
        try:
            # Both are the server's clock; ours may differ.
            retry_at = parsedate_to_datetime(retry_after)
            now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
            return max(0.0, (retry_at - now).total_seconds())
        except (ValueError, TypeError, OverflowError):
            pass
    limit = parse_rate_limit(headers)
    if limit is not None:
        # With some left it is not the hour that is spent, and its end is no answer.
        return limit.reset_seconds if limit.remaining == 0 else None
    reset = _parse_number(headers.get("x-ratelimit-reset"))
    return None if reset is None or reset > _MAX_RESET_SECONDS else reset
