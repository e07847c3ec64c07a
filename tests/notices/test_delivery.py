"""Messages are sent until they have arrived, for an hour, with the real database and receiver."""

import asyncio
import re
import time
from datetime import timedelta

import pytest
from pytest_django import Settings

from dashboard.db import threads as db_threads
from dashboard.metrics import collector
from dashboard.models import NoticeMessage
from dashboard.notices import channel_states, delivery
from tests.support.notices import SECRET, Receiver, store
from tests.support.world import LoggedEvents

pytestmark = pytest.mark.usefixtures("closing_connections")


@pytest.fixture(autouse=True)
def channel(receiver: Receiver, settings: Settings) -> None:
    settings.NOTIFY_URLS = {"siem": f"webhook+http://{SECRET}@{receiver.address}/planted"}


def deliver(channel: str = "siem") -> None:
    asyncio.run(delivery.Delivery(channel)(None))


def advance(by: timedelta) -> None:
    db_threads.set_clock_offset(db_threads._clock_offset + by)


@pytest.fixture(autouse=True)
def clock() -> object:
    yield
    db_threads.set_clock_offset(timedelta())


def test_each_message_is_sent_once(receiver: Receiver) -> None:
    store(count=8)  # webhooks are not combined
    deliver()
    deliver()
    assert len(receiver.requests) == 8
    assert NoticeMessage.objects.filter(next_try_at=None).exclude(sent_at=None).count() == 8


def test_failing_channel_is_tried_for_an_hour(
    receiver: Receiver, logged_events: LoggedEvents, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    receiver.answers = ["503"]
    [message] = store()
    pauses = []
    while message.next_try_at is not None:
        deliver()
        before = db_threads.now()
        message.refresh_from_db()
        if message.next_try_at is not None:
            pauses.append(round((message.next_try_at - before).total_seconds()))
            advance(message.next_try_at - before + timedelta(milliseconds=1))
    assert pauses == [15, 30, 60, 120, 240, 480, 600, 600, 600, 600]
    assert len(receiver.requests) == 11
    assert message.sent_at is None
    assert message.claimed_at is not None
    assert message.claimed_at - message.created_at < timedelta(hours=1)
    [state] = channel_states.load()
    assert (state.sent_at, state.waiting) == (None, 0)
    assert state.error == "The receiver answered with status 503."
    assert [event["channel"] for event in logged_events("notice.given_up")] == ["siem"]
    assert "planted" not in caplog.text
    assert SECRET not in caplog.text


def test_message_of_a_leader_that_was_away_is_sent(receiver: Receiver) -> None:
    store()
    advance(timedelta(hours=5))
    deliver()
    assert len(receiver.requests) == 1


def test_claim_of_a_dead_process_is_taken_over(receiver: Receiver) -> None:
    [message] = store()
    delivery.claim("siem", db_threads.now())
    deliver()
    assert receiver.requests == []
    advance(delivery.LEASE)
    deliver()
    assert len(receiver.requests) == 1
    message.refresh_from_db()
    assert message.attempts == 2


def test_process_that_dies_at_each_attempt_ends() -> None:
    [message] = store()
    delivery.claim("siem", db_threads.now())
    advance(timedelta(hours=1, seconds=1))
    assert delivery.claim("siem", db_threads.now()) == []
    message.refresh_from_db()
    assert (message.next_try_at, message.sent_at) == (None, None)


def test_many_messages_become_one(settings: Settings) -> None:
    settings.NOTIFY_URLS = {"chat": "ntfys://topic"}
    store("chat", 25)
    now = db_threads.now()
    together = delivery.combine(delivery.claim("chat", now))
    assert together.title == "25 notices"
    assert together.body.count("http://d/r") == delivery.MAX_LISTED
    assert together.body.endswith("And 5 more.")
    assert delivery.claim("chat", now) == []


def test_removed_channel_is_given_up(logged_events: LoggedEvents) -> None:
    [message] = store("removed")
    delivery.give_up_removed(db_threads.now())
    message.refresh_from_db()
    assert message.next_try_at is None
    assert len(logged_events("notice.given_up")) == 1


def test_hanging_channel_delays_no_other(receiver: Receiver, settings: Settings) -> None:
    receiver.answers = ["hang", "200"]
    settings.NOTIFY_URLS |= {"other": settings.NOTIFY_URLS["siem"]}
    store("siem")
    store("other")

    async def both() -> float:
        hanging = asyncio.create_task(delivery.Delivery("siem")(None))
        while not receiver.requests:
            await asyncio.sleep(0.01)
        began_at = time.monotonic()
        await delivery.Delivery("other")(None)
        hanging.cancel()  # as the worker does at its end
        await asyncio.gather(hanging, return_exceptions=True)
        return time.monotonic() - began_at

    assert asyncio.run(both()) < 2
    assert NoticeMessage.objects.exclude(sent_at=None).get().channel == "other"


def test_messages_and_failed_attempts_are_counted_by_channel(
    receiver: Receiver, settings: Settings
) -> None:
    settings.NOTIFY_URLS |= {"idle": "json://127.0.0.1:1"}
    store(count=2)
    receiver.answers = ["503"]
    deliver()
    advance(timedelta(seconds=16))
    receiver.answers = []
    deliver()
    text = collector.render("", 0)[0].decode()
    assert re.findall(
        r'^releaseflow_notices_(\w+){channel="(\w+)"} (\S+)$', text, re.MULTILINE
    ) == [
        *(("sent_total", "siem", "2.0"), ("sent_total", "idle", "0.0")),
        *(("failed_total", "siem", "1.0"), ("failed_total", "idle", "0.0")),
    ]
