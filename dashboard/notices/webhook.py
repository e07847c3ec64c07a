"""Outgoing webhooks, signed as “Standard Webhooks” says: docs/run/notices.md."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import re
from urllib.parse import unquote, urlsplit

import httpx

from dashboard.models import NoticeMessage

VERSION = 1  # of the body
TIMEOUT = 15.0  # seconds for all of a request
MIN_SECRET_LENGTH = 24  # bytes, as the standard asks for


class SendError(Exception):
    """A message did not arrive, or perhaps not; the text states why, without any address."""


def is_webhook(address: str) -> bool:
    """Return whether an address of NOTIFY_URLS is for this module, not for Apprise."""
    return address.startswith(("webhook+https://", "webhook+http://"))


def split(address: str) -> tuple[str, bytes]:
    """Return the URL and the key of webhook+https://secret@host/path; raise ValueError."""
    match = re.fullmatch(r"webhook\+(https?://)([^/@:]+)@([^@]+)", address)
    if match is None:
        raise ValueError("not webhook+https://secret@host/path")
    url = match[1] + match[3]
    if not urlsplit(url).hostname or urlsplit(url).port == 0:
        raise ValueError("no host")
    try:
        key = base64.b64decode(unquote(match[2]).removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ValueError("the secret is not in base64") from None
    if len(key) < MIN_SECRET_LENGTH:
        raise ValueError("the secret is too short")
    return url, key


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header webhook-signature."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


async def post(address: str, message: NoticeMessage, timestamp: int) -> None:
    """Post a message, whose id stays the same when it is sent again; raise SendError."""
    try:
        url, key = split(address)
    except ValueError:
        raise SendError("The address is not webhook+https://secret@host/path.") from None
    message_id = f"msg_{message.created_at:%Y%m%d%H%M%S}_{message.pk or 0}"
    body = json.dumps(message.payload | {"version": VERSION, "id": message_id}).encode()
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(key, message_id, timestamp, body),
    }
    try:
        async with (
            asyncio.timeout(TIMEOUT),
            httpx.AsyncClient(timeout=TIMEOUT) as client,
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            status = response.status_code  # its body, which may not end, is not read
    except (TimeoutError, httpx.TimeoutException):
        raise SendError(f"No answer within {TIMEOUT:.0f} s.") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        # Their texts may have the address.
        raise SendError("The receiver could not be reached.") from None
    if not 200 <= status < 300:
        raise SendError(f"The receiver answered with status {status}.")
