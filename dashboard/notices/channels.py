"""Send messages to the channels of NOTIFY_URLS.

Addresses hold secrets: none is in an error, a log or a page.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from dashboard.db.threads import now
from dashboard.models import NoticeMessage
from dashboard.notices import webhook
from dashboard.notices.webhook import SendError

# Seconds for a service of Apprise; delivery.LEASE is longer.
TIMEOUT = 40.0
# Without the script's folder in the path: its modules would hide others of the same names.
_CHILD = [sys.executable, "-P", str(Path(__file__).with_name("apprise_child.py"))]


def register_check() -> None:
    """Check NOTIFY_URLS at the start of a server; it takes two seconds with Apprise."""
    register(check_addresses, deploy=True)


def check_addresses(**_: Any) -> list[CheckMessage]:
    """Return an error for each channel whose address cannot be used, by its name only.

    And one without BASE_URL: the links of messages would lead nowhere.
    """
    addresses: dict[str, str] = settings.NOTIFY_URLS
    if addresses and not settings.BASE_URL:
        hint = "Set the address at which people open the dashboard: messages contain links."
        return [Error("NOTIFY_URLS needs BASE_URL.", hint=hint, id="dashboard.E044")]
    for_apprise = {n: text for n, text in addresses.items() if not webhook.is_webhook(text)}
    accepted = _accepted_by_apprise(for_apprise) if for_apprise else set()
    accepted |= {name for name in addresses.keys() - for_apprise if _is_valid(addresses[name])}
    return [
        Error(
            f"NOTIFY_URLS: the address of channel “{name}” cannot be used.",
            hint="Set an address of Apprise, or webhook+https://secret@host/path with a secret by "
            "openssl rand -hex 32: docs/run/notices.md.",
            id="dashboard.E043",
        )
        for name in addresses
        if name not in accepted
    ]


def _is_valid(address: str) -> bool:
    try:
        webhook.split(address)
    except ValueError:
        return False
    return True


def _accepted_by_apprise(addresses: dict[str, str]) -> set[str]:
    done = subprocess.run(  # noqa: S603 - this module's own command
        _CHILD,
        input=json.dumps(addresses).encode(),
        capture_output=True,
        check=False,
        env=settings.CHILD_ENVIRONMENT,
    )
    return set(json.loads(done.stdout)) if done.returncode == 0 else set()


async def send(message: NoticeMessage) -> None:
    """Send a message to its channel; raise SendError, whose text has no address."""
    address = settings.NOTIFY_URLS.get(message.channel)
    if address is None:
        raise SendError("The channel is not in NOTIFY_URLS.")
    if webhook.is_webhook(address):
        await webhook.post(address, message, int(now().timestamp()))
        return
    work = {"address": address, "title": message.title, "body": message.body}
    answer = await _ask_child(json.dumps(work).encode())
    if answer:
        raise SendError(answer)


async def _ask_child(work: bytes) -> str:
    pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(
        *_CHILD, stdin=pipe, stdout=pipe, stderr=nowhere, env=settings.CHILD_ENVIRONMENT
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            output, _ = await child.communicate(work)
        return str(json.loads(output))
    except TimeoutError:
        raise SendError(f"No answer within {TIMEOUT:.0f} s.") from None
    except ValueError:
        raise SendError("Apprise ended without an answer.") from None
    finally:  # also if this process is to stop
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
