"""Outgoing webhooks, to a receiver that verifies them by its own code."""

import asyncio
import base64
import hashlib
import hmac
import json

import pytest
from pytest_django import Settings

from dashboard.notices import channels, webhook
from dashboard.notices.webhook import SendError
from tests.support.notices import SECRET, Receiver, message


def test_signature_can_be_verified(receiver: Receiver, settings: Settings) -> None:
    settings.NOTIFY_URLS = {"siem": f"webhook+http://{SECRET}@{receiver.address}/hook?a=b"}
    asyncio.run(channels.send(message()))
    [(path, headers, body)] = receiver.requests
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(base64.b64decode(SECRET), signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    assert path == "/hook?a=b"
    assert "authorization" not in headers
    assert json.loads(body) == {
        "event": "overdue", "title": "Rün", "version": 1, "id": "msg_20261201120000_7",
    }  # fmt: skip
    assert headers["webhook-id"] == "msg_20261201120000_7"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("500", "The receiver answered with status 500."),
        ("429", "The receiver answered with status 429."),
        ("redirect", "The receiver answered with status 307."),
        ("hang", "No answer within 0 s."),
    ],
)
def test_failure_is_told(
    answer: str,
    text: str,
    receiver: Receiver,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT", 0.4)
    settings.NOTIFY_URLS = {"siem": f"webhook+http://{SECRET}@{receiver.address}/"}
    receiver.answers = [answer]
    with pytest.raises(SendError, match=text):
        asyncio.run(channels.send(message()))
    assert len(receiver.requests) == 1  # a redirect is not followed


def test_body_of_the_answer_is_not_read(receiver: Receiver, settings: Settings) -> None:
    settings.NOTIFY_URLS = {"siem": f"webhook+http://{SECRET}@{receiver.address}/"}
    receiver.answers = ["endless"]
    asyncio.run(asyncio.wait_for(channels.send(message()), 5))


@pytest.mark.parametrize(
    "address",
    ["https://host/", f"https://{SECRET}:x@host/", f"https://{SECRET}@/", "https://c2hvcnQ=@host/",
     "https://no-base-64!@host/", f"https://{SECRET}@host:99999/", f"https://{SECRET}@[::1/"],
)  # fmt: skip
def test_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        webhook.split(f"webhook+{address}")
    assert SECRET not in str(caught.value)
