"""What an error tells a person: Northflank's own words, and nothing that must not be shown."""

import json
from typing import Any

import pytest

from dashboard.northflank import NorthflankError, answers
from tests.support import payloads


def failure(status: int, body: Any, *, token: str = "") -> NorthflankError:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(NorthflankError) as raised:
        answers.decode(status, {}, sent, token=token)
    return raised.value


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Not now"}},
        {"error": "Not now"},
        {"message": "Not now", "code": "conflict", "status": 409},
        {"error": {}, "message": "Not now"},
        {"error": {"message": "  Not\n\tnow\x00 "}},
    ],
)
def test_error_message_is_found_in_any_form_of_body(body: Any) -> None:
    assert str(failure(409, body)) == "Northflank refused (409): Not now"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>502</html>", b"upstream connect error", b"[]", b"null", b'{"error":',
        b"[" * 99999, b"\xff\xfe", b'{"error":{"message":"<html>no</html>"}}',
        b'{"error":{"message":7}}',
    ],
)  # fmt: skip
def test_error_without_message_shows_status_only(body: bytes) -> None:
    assert str(failure(502, body)) == "Northflank has failed (502)."


def test_error_message_is_truncated() -> None:
    assert (
        len(str(failure(400, payloads.error("x" * 5000))))
        <= len("Northflank refused (400): ") + 300
    )


def test_error_message_redacts_token_and_url_secrets() -> None:
    message = "bad token TKN-1 for https://user:pw@api/x?key=abc"
    assert str(failure(400, payloads.error(message), token="TKN-1")) == (
        "Northflank refused (400): bad token … for https://api/…"
    )


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("nf-1", "nf-1"), (12, "12"), (None, None), ({}, None), (True, None), ("x" * 999, "x" * 100)],
)
def test_error_id_is_kept(sent: Any, kept: str | None) -> None:
    assert failure(500, payloads.error("no", id=sent)).error_id == kept
