"""From status, headers and body to decoded JSON, or to the exception that says why not. Pure."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from dashboard.northflank.errors import (
    NorthflankError,
    NotFound,
    RateLimited,
    Refused,
    Rejected,
    ServerError,
    UnexpectedAnswer,
)
from dashboard.northflank.ratelimit import number, parse
from dashboard.northflank.reading import mapping, text, without_url_secrets

_LONGEST_MESSAGE = 300
_LONGEST_ERROR_ID = 100
_LONGEST_WAIT = 3600.0  # seconds
# Also the answer for a feature that is not enabled for the account: no proof of a bad token.
_FEATURE = re.compile(r"\bfeatures?\b|\bnot enabled\b", re.IGNORECASE)


def decode(status: int, headers: Mapping[str, str], body: bytes, *, token: str = "") -> object:
    """Return an answer's JSON, whatever it is; raises the NorthflankError that its status means.

    `token` is struck out of what upstream says, should it quote it.
    """
    if not 200 <= status < 300:
        raise _failure(status, headers, body, token)
    if not body.strip():
        raise UnexpectedAnswer("Northflank's answer is empty.", http_status=status)
    try:
        return _json(body)
    except ValueError:
        raise UnexpectedAnswer(
            "Northflank's answer is no JSON; perhaps a proxy answered instead.", http_status=status
        ) from None
    except RecursionError:
        raise UnexpectedAnswer(
            "Northflank's answer is nested too deep to read.", http_status=status
        ) from None


def unwrap(answer: object, status: int) -> object:
    """Return the `data` of an answer; raises UnexpectedAnswer where it has none."""
    if isinstance(answer, dict) and isinstance(data := answer.get("data"), dict | list):
        return data
    raise UnexpectedAnswer(
        "Northflank's answer has another shape than documented.", http_status=status
    )


def _json(body: bytes) -> object:
    # The standard parser, because it lets lone surrogates pass: one hostile name must not cost us
    # the page. They are replaced when texts are read.
    return json.loads(body.decode("utf-8-sig", errors="replace"))


def _failure(status: int, headers: Mapping[str, str], body: bytes, token: str) -> NorthflankError:
    said, error_id, is_own = _said(body, token)

    def message(sentence: str) -> str:
        return f"{sentence} ({status}): {said}" if said else f"{sentence} ({status})."

    if status == 401 and _FEATURE.search(said):
        return Refused(
            message("Northflank has not enabled this for the account"),
            cause="feature_off", http_status=status, error_id=error_id,
        )  # fmt: skip
    if status == 401:
        return Refused(
            message("Northflank does not accept the API token"),
            cause="unauthorised", http_status=status, error_id=error_id,
        )  # fmt: skip
    if status == 429:
        return RateLimited(
            message("Northflank refuses requests for now"),
            http_status=status, error_id=error_id, reset_seconds=_reset_seconds(headers),
        )  # fmt: skip
    kind: type[NorthflankError]
    if status == 403:
        kind, sentence = Refused, "The API token lacks the permission"
    elif status == 404 and is_own:
        kind, sentence = NotFound, "Northflank knows no such thing"
    elif status == 404:
        # A proxy that does not find Northflank says nothing of what Northflank knows.
        kind, sentence = UnexpectedAnswer, "A 404 that is not Northflank's own"
    elif 400 <= status < 500:
        kind, sentence = Rejected, "Northflank refused"
    elif status >= 500:
        kind, sentence = ServerError, "Northflank has failed"
    else:
        kind, sentence = UnexpectedAnswer, "Northflank's answer is of an unexpected kind"
    return kind(message(sentence), http_status=status, error_id=error_id)


def _said(body: bytes, token: str) -> tuple[str, str | None, bool]:
    """Return upstream's words, fit for a user, its error id, and whether the form is its own."""
    try:
        answer = _json(body)
    except (ValueError, RecursionError):
        return "", None, False  # HTML or plain text of a proxy: nothing for a person to read
    sent = mapping(answer)
    error = sent.get("error")
    wrapped = mapping(error) or sent  # some servers leave the wrapper out
    error_id = wrapped.get("id", sent.get("id"))
    message = text(wrapped.get("message")) or text(error) or text(sent.get("message")) or ""
    if token:
        message = message.replace(token, "…")
    message = " ".join(without_url_secrets(message).replace("\ufffd", " ").split())
    if message.startswith("<"):
        message = ""  # HTML inside JSON
    if len(message) > _LONGEST_MESSAGE:
        message = message[: _LONGEST_MESSAGE - 1] + "…"
    if isinstance(error_id, int) and not isinstance(error_id, bool) and error_id < 2**63:
        error_id = str(error_id)
    return message, (text(error_id) or "")[:_LONGEST_ERROR_ID] or None, _is_own(sent)


def _is_own(sent: dict[str, object]) -> bool:
    # As its clients read it: `error` around a message; or, in the form of an older description of
    # the API, a code beside the message. Proxies, too, answer in JSON.
    wrapped = mapping(sent.get("error"))
    if text(wrapped.get("message")) is not None:
        return True
    return text(sent.get("code")) is not None and text(sent.get("message")) is not None


def _reset_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long a 429 asks us to wait: `Retry-After`, else until the spent window ends.

    An hour at most: the window is no longer, and one question more tells whether it is over.
    """
    asked = _asked_to_wait(headers)
    return None if asked is None else min(asked, _LONGEST_WAIT)


def _asked_to_wait(headers: Mapping[str, str]) -> float | None:
    # https://www.rfc-editor.org/rfc/rfc9110#field.retry-after: seconds, or an HTTP date
    sent = {name.lower(): value for name, value in headers.items()}
    retry_after = sent.get("retry-after")
    if (wait := number(retry_after)) is not None:
        return wait
    if retry_after is not None:
        try:
            # Both are the server's clock; ours may differ.
            until = parsedate_to_datetime(retry_after)
            now = parsedate_to_datetime(sent["date"]) if "date" in sent else datetime.now(UTC)
            return max(0.0, (until - now).total_seconds())
        except (ValueError, TypeError, OverflowError):
            pass
    limit = parse(headers)
    if limit is not None:
        # With some left it is not the hour that is spent, and its end is no answer.
        return limit.reset_seconds if limit.remaining == 0 else None
    return number(sent.get("x-ratelimit-reset"))
