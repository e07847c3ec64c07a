"""Apprise, in a process of its own: whatever a service answers, this one can be killed.

Importing Apprise takes two seconds and 28 MB, and what it logs may hold addresses. Both stay here.
Standard input has the work, so that no address is in a command line or the environment; standard
output gets the answer.
"""

import json
import logging
import re
import resource
import signal
import sys

MAX_SECONDS = 45  # its parent may be gone
MAX_MEMORY = 1 << 30  # bytes of addresses; an answer that does not end must not fill the machine


def accepted(addresses: dict[str, str]) -> list[str]:
    """Return the names of the addresses that Apprise knows."""
    from apprise import Apprise

    return [name for name, address in addresses.items() if Apprise.instantiate(address)]


def send(address: str, title: str, body: str) -> str:
    """Send a message; return "", or why it failed without any text of others."""
    from apprise import Apprise, AppriseAsset, NotifyFormat

    statuses = _Statuses()
    logging.getLogger("apprise").addHandler(statuses)
    asset = AppriseAsset(
        app_id="Release flows",
        app_desc="Release flows",
        app_url="",
        image_url_mask="",  # else each message loads Apprise's picture from GitHub
        image_url_logo="",
        async_mode=False,
        http_redirects=False,
    )
    service = Apprise(asset=asset)
    if not service.add(address):
        return "The address is none that Apprise knows."
    if service.notify(body, title, body_format=NotifyFormat.TEXT):
        return ""
    if statuses.last:
        return f"The service answered with status {statuses.last}."
    return "The service could not be reached, or did not accept it."


class _Statuses(logging.Handler):
    """Keeps the last HTTP status in what Apprise logs."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        if match := re.search(r"error=(\d{3})\b", record.getMessage()):
            self.last = match[1]


if __name__ == "__main__":
    signal.alarm(MAX_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    work = json.load(sys.stdin)
    answer = send(**work) if "address" in work else accepted(work)
    json.dump(answer, sys.stdout)
