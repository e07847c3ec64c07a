"""What Apprise sends to Slack and Teams, and that it can be killed; with its real code."""

import asyncio
import json
from typing import Any

import pytest
from pytest_django import Settings

from dashboard.notices import apprise_child, channels
from dashboard.notices.webhook import SendError
from tests.support.notices import Receiver, message

# As texts.py leaves it: a word joiner follows what would begin a mention or a link.
HOSTILE = "@\u2060everyone <\u2060!channel> [x]\u2060(javascript:alert(1)) & *b* " + "x" * 1400
SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/"
TEAMS = "workflows://{}/aB12cD34eF56gH78/aB12cD34eF56gH78iJ90kL12mN34oP56"


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    return [t for v in value for t in strings(v)] if isinstance(value, list) else [str(value)]


def test_slack(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    from apprise.plugins.slack import NotifySlack

    monkeypatch.setattr(NotifySlack, "webhook_url", f"{receiver.url}/services")
    error = apprise_child.send(SLACK, "Run 12 is overdue", HOSTILE)
    assert len(receiver.requests) == 1, error
    payload = json.loads(receiver.requests[0][2])
    text = " ".join(strings(payload))
    assert "<!" not in text
    assert "](" not in text
    assert "@everyone" not in text


def test_teams(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    post = requests.post

    def post_here(url: str, **options: Any) -> requests.Response:
        assert url.startswith("https://prod.example.com/workflows/aB12cD34eF56gH78/")
        return post(receiver.url, **options | {"verify": False})

    monkeypatch.setattr("apprise.plugins.workflows.requests.post", post_here)
    address = TEAMS.format("prod.example.com")
    error = apprise_child.send(address, "Run 12 is overdue", HOSTILE)
    assert len(receiver.requests) == 1, error
    payload = json.loads(receiver.requests[0][2])
    [attachment] = payload["attachments"]
    assert payload["type"] == "message"
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert attachment["content"]["type"] == "AdaptiveCard"
    assert {block["type"] for block in attachment["content"]["body"]} == {"TextBlock"}
    assert "msteams" not in attachment["content"] or "entities" not in str(payload)  # no mention
    text = " ".join(strings(payload))
    assert "](" not in text
    assert "Run 12 is overdue" in text
    assert len(receiver.requests[0][2]) < 28_000  # bytes of a message that Teams takes


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("404", "The service answered with status 404."),
        ("redirect", "The service answered with status 307."),
        ("hang", "No answer within 8 s."),
        ("endless", "No answer within 8 s."),
    ],
)
def test_failure_is_told_without_the_address(
    answer: str, text: str, receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    if answer in {"hang", "endless"}:
        monkeypatch.setattr(channels, "TIMEOUT", 8.0)  # Apprise takes 2 s to start
    settings.NOTIFY_URLS = {"chat": f"json://user:planted@{receiver.address}/planted?rto=30"}
    receiver.answers = [answer]
    with pytest.raises(SendError) as caught:
        asyncio.run(channels.send(message(channel="chat")))
    assert str(caught.value) == text
    assert len(receiver.requests) == 1


def test_cancelled_child_is_killed(receiver: Receiver, settings: Settings) -> None:
    """At the end of the process, which must not wait for a service."""
    settings.NOTIFY_URLS = {"chat": f"json://{receiver.address}/?rto=30"}
    receiver.answers = ["hang"]

    async def cancel() -> None:
        task = asyncio.create_task(channels.send(message(channel="chat")))
        while not receiver.requests:
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait({task}, timeout=1)
        assert task.cancelled()

    asyncio.run(cancel())


def test_check_names_the_channel_only(settings: Settings) -> None:
    settings.NOTIFY_URLS = {
        "good": SLACK,
        "unknown": "nope://planted",
        "hook": "webhook+https://planted@host/",
        "signed": "webhook+https://" + "ab" * 32 + "@host/",
    }
    settings.BASE_URL = ""
    assert [error.msg for error in channels.check_addresses()] == ["NOTIFY_URLS needs BASE_URL."]
    settings.BASE_URL = "https://releases.example.com"
    errors = channels.check_addresses()
    assert [error.msg for error in errors] == [
        "NOTIFY_URLS: the address of channel “unknown” cannot be used.",
        "NOTIFY_URLS: the address of channel “hook” cannot be used.",
    ]
    assert "planted" not in str(errors)
