"""From status, headers and body to decoded JSON, or to the exception that says why not. Pure."""

import json
import re
from collections.abc import Mapping
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
from dashboard.northflank.ratelimit import parse_number, parse_rate_limit
from dashboard.northflank.reading import as_object, as_text, redact_urls

_MAX_MESSAGE_LENGTH = 300
_MAX_ERROR_ID_LENGTH = 100
_MAX_RETRY_AFTER_SECONDS = 3600.0  # seconds
# Also the answer for a feature that is not enabled for the account: no proof of a bad token.
_FEATURE_PATTERN = re.compile(r"\bfeatures?\b|\bnot enabled\b", re.IGNORECASE)


def decode(status: int, headers: Mapping[str, str], body: bytes, *, token: str = "") -> object:
    """Return an answer's JSON, whatever it is; raises the NorthflankError that its status means.

    `token` is struck out of what upstream says, should it quote it.
    """
    if not 200 <= status < 300:
        raise _error_from_response(status, headers, body, token)
    if not body.strip():
        raise UnexpectedResponse("Northflank's answer is empty.", http_status=status)
    try:
        return _load_json(body)
    except ValueError:
        raise UnexpectedResponse(
            "Northflank's answer is no JSON; perhaps a proxy answered instead.", http_status=status
        ) from None
    except RecursionError:
        raise UnexpectedResponse(
            "Northflank's answer is nested too deep to read.", http_status=status
        ) from None


def unwrap(payload: object, status: int) -> object:
    """Return the `data` of an answer; raises UnexpectedAnswer where it has none."""
    if isinstance(payload, dict) and isinstance(data := payload.get("data"), dict | list):
        return data
    raise UnexpectedResponse(
        "Northflank's answer has another shape than documented.", http_status=status
    )


def _load_json(body: bytes) -> object:
    # The standard parser, because it lets lone surrogates pass: one hostile name must not cost us
    # the page. They are replaced when texts are read.
    return json.loads(body.decode("utf-8-sig", errors="replace"))


def _error_from_response(
    status: int, headers: Mapping[str, str], body: bytes, token: str
) -> NorthflankError:
    detail, error_id, is_northflank_error = _parse_error_body(body, token)

    def format_message(sentence: str) -> str:
        return f"{sentence} ({status}): {detail}" if detail else f"{sentence} ({status})."

    if status == 401 and _FEATURE_PATTERN.search(detail):
        return AccessDenied(
            format_message("Northflank has not enabled this for the account"),
            cause="feature_off",
            http_status=status,
            error_id=error_id,
        )
    if status == 401:
        return AccessDenied(
            format_message("Northflank does not accept the API token"),
            cause="unauthorised",
            http_status=status,
            error_id=error_id,
        )
    if status == 429:
        return RateLimited(
            format_message("Northflank refuses requests for now"),
            http_status=status,
            error_id=error_id,
            retry_after_seconds=_retry_after_seconds(headers),
        )
    error_class: type[NorthflankError]
    if status == 403:
        error_class, summary = AccessDenied, "The API token lacks the permission"
    elif status == 404 and is_northflank_error:
        error_class, summary = NotFound, "Northflank knows no such thing"
    elif status == 404:
        # A proxy that does not find Northflank says nothing of what Northflank knows.
        error_class, summary = UnexpectedResponse, "A 404 that is not Northflank's own"
    elif 400 <= status < 500:
        error_class, summary = RequestRejected, "Northflank refused"
    elif status >= 500:
        error_class, summary = ServerError, "Northflank has failed"
    else:
        error_class, summary = UnexpectedResponse, "Northflank's answer is of an unexpected kind"
    return error_class(format_message(summary), http_status=status, error_id=error_id)


def _parse_error_body(body: bytes, token: str) -> tuple[str, str | None, bool]:
    """Return upstream's words, fit for a user, its error id, and whether the form is its own."""
    try:
        payload = _load_json(body)
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
    message = " ".join(redact_urls(message).replace("\ufffd", " ").split())
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
    """Return how long a 429 asks us to wait: `Retry-After`, else until the spent window ends.

    An hour at most: the window is no longer, and one question more tells whether it is over.
    """
    seconds = _requested_wait(headers)
    return None if seconds is None else min(seconds, _MAX_RETRY_AFTER_SECONDS)


def _requested_wait(headers: Mapping[str, str]) -> float | None:
    # https://www.rfc-editor.org/rfc/rfc9110#field.retry-after: seconds, or an HTTP date
    lowercase_headers = {name.lower(): value for name, value in headers.items()}
    retry_after = lowercase_headers.get("retry-after")
    if (wait := parse_number(retry_after)) is not None:
        return wait
    if retry_after is not None:
        try:
            # Both are the server's clock; ours may differ.
            retry_at = parsedate_to_datetime(retry_after)
            now = (
                parsedate_to_datetime(lowercase_headers["date"])
                if "date" in lowercase_headers
                else datetime.now(UTC)
            )
            return max(0.0, (retry_at - now).total_seconds())
        except (ValueError, TypeError, OverflowError):
            pass
    limit = parse_rate_limit(headers)
    if limit is not None:
        # With some left it is not the hour that is spent, and its end is no answer.
        return limit.reset_seconds if limit.remaining == 0 else None
    return parse_number(lowercase_headers.get("x-ratelimit-reset"))
