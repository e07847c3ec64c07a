"""Turn a response into decoded JSON and its rate limit, or into an exception. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

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
from dashboard.northflank.values import Json, as_object, as_text

_MAX_MESSAGE_LENGTH = 300
_MAX_ERROR_ID_LENGTH = 100
_MAX_RETRY_AFTER_SECONDS = 3600.0  # no window is longer, and another request shows if it is over
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


def decode(status: int, headers: Mapping[str, str], body: bytes, token: str) -> Json:
    """Return the JSON of a 2xx response, which has `data`; raises NorthflankError for any other.

    `headers` as `parse_rate_limit` takes them. `token` is removed from error messages, should
    Northflank quote it.
    """
    if not 200 <= status < 300:
        raise _error_from_response(status, headers, body, token)
    if not body.strip():
        raise unexpected("empty body", status)
    try:
        payload = _load_json(body)
    except ValueError:
        raise unexpected("not JSON, perhaps from a proxy", status) from None
    except RecursionError:
        raise unexpected("nested too deeply", status) from None
    if not isinstance(payload, dict) or not isinstance(payload.get("data", ""), dict | list | None):
        raise unexpected("no data", status)
    return payload


def _load_json(body: bytes) -> object:
    # The standard parser, because it lets lone surrogates pass: one hostile name must not cost us
    # the page. They are replaced when texts are decoded.
    return json.loads(body.decode("utf-8-sig", errors="replace"))


def unexpected(problem: str, status: int = 200) -> UnexpectedResponse:
    """Return the exception for a response that cannot be used."""
    message = f"Unexpected response from Northflank: {problem}."
    return UnexpectedResponse(message, http_status=status)


def parse_rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Return the rate limit in a response's headers; None where they are incomplete or implausible.

    `headers` by their names in lower case, or in any. Documented at
    https://northflank.com/docs/v1/api/use-the-api
    """
    limit = _parse_number(headers.get("x-ratelimit-limit"))
    remaining = _parse_number(headers.get("x-ratelimit-remaining"))
    reset = _parse_number(headers.get("x-ratelimit-reset"))
    if limit is None or remaining is None or reset is None:
        return None
    # Believing that more is left than the limit would spend the window long before its end.
    if reset > _MAX_RESET_SECONDS or not max(remaining, _MIN_LIMIT) <= limit <= _MAX_LIMIT:
        return None
    return RateLimit(int(limit), int(remaining), reset)


def _parse_number(value: str | None) -> float | None:
    """Return a header's plain non-negative number, or None."""
    value = (value or "").strip()
    return float(value) if _NUMBER.fullmatch(value) else None


def _error_from_response(
    status: int, headers: Mapping[str, str], body: bytes, token: str
) -> NorthflankError:
    try:
        fields = as_object(_load_json(body))
    except (ValueError, RecursionError):
        fields = {}  # HTML or plain text of a proxy: nothing for a person to read
    # Some servers leave the wrapper out.
    error = as_object(fields.get("error")) or fields
    detail = _clean_message(as_text(error.get("message")) or as_text(fields.get("error")), token)
    error_class, cause, text = _ERRORS[_error_kind(status, detail, fields)]
    return error_class(
        f"{text} ({status}): {detail}" if detail else f"{text} ({status}).",
        cause=cause,
        http_status=status,
        error_id=(as_text(error.get("id")) or "")[:_MAX_ERROR_ID_LENGTH] or None,
        retry_after_seconds=_retry_after_seconds(headers) if status == 429 else None,
    )


def _clean_message(message: str | None, token: str) -> str:
    """Return the message for a person: one line without secrets."""
    message = (message or "").replace(token, "…")
    message = " ".join(redact_secrets(message).replace("\ufffd", " ").split())
    is_long = len(message) > _MAX_MESSAGE_LENGTH
    return f"{message[: _MAX_MESSAGE_LENGTH - 1]}…" if is_long else message


def _error_kind(status: int, detail: str, fields: Json) -> str:
    """Return the key in _ERRORS of a response that is not a success."""
    if status == 401 and _FEATURE.search(detail):
        return "feature"
    # As Northflank's clients read it: `error` around a message; or, in the form of an older
    # description of the API, a code beside the message. Proxies, too, answer in JSON.
    is_wrapped = "message" in as_object(fields.get("error"))
    if status == 404 and not (is_wrapped or {"code", "message"} <= fields.keys()):
        return "proxy"  # it did not find Northflank; whether the object exists is unknown
    return next((kind for kind in (str(status), f"{status // 100}xx") if kind in _ERRORS), "other")


def _retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait after a 429: `Retry-After`, else until the spent window ends."""
    seconds = _parse_number(headers.get("retry-after"))
    if seconds is None:
        rate_limit = parse_rate_limit(headers)
        # With some left it is not the hour that is spent, and its end is no answer.
        seconds = rate_limit.reset_seconds if rate_limit and not rate_limit.remaining else None
    return None if seconds is None else min(seconds, _MAX_RETRY_AFTER_SECONDS)
