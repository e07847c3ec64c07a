"""The hub: bounded, shared, and gone when it is closed."""

import asyncio

import pytest

from dashboard.web.live.hub import LASTS, QUEUED, Hub

pytestmark = pytest.mark.anyio


async def test_a_message_reaches_all_viewers_of_its_channel_and_nobody_else() -> None:
    hub = Hub[str]()
    with hub.viewer("a") as first, hub.viewer("a") as second, hub.viewer("b") as other:
        hub.publish("a", b"one")
        hub.publish("b", b"two")
        received = [await viewer.next() for viewer in (first, second, other)]
    assert received == [b"one", b"one", b"two"]
    assert received[0] is received[1]  # the same bytes, whatever the number of viewers


async def test_channels_are_those_that_somebody_listens_to() -> None:
    hub = Hub[str]()
    with hub.viewer("a"):
        with hub.viewer("a"), hub.viewer("b"):
            assert sorted(hub.channels) == ["a", "b"]
            assert hub.viewers == 3
        assert hub.channels == ["a"]
    assert hub.channels == []
    hub.publish("a", b"unheard")


async def test_who_falls_too_far_behind_gets_what_was_queued_and_then_the_end() -> None:
    hub = Hub[str]()
    with hub.viewer("a") as slow:
        for number in range(QUEUED + 10):
            hub.publish("a", b"%d" % number)
        received = []
        while (message := await slow.next()) is not None:
            received.append(message)
        assert received == [b"%d" % number for number in range(QUEUED)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):  # what is there is returned without waiting
                await slow.next()


async def test_a_stream_ends_by_itself_so_that_rights_are_asked_for_again() -> None:
    hub = Hub[str]()
    with hub.viewer("a") as viewer:
        later = asyncio.get_running_loop().time() + LASTS[1] + 1
        viewer.put(b"unheard", later)
        assert await viewer.next() is None


async def test_the_streams_of_some_people_end_and_the_others_go_on() -> None:
    hub = Hub[str]()
    with hub.viewer("a", 1) as first, hub.viewer("a", 2) as second, hub.viewer("b", 1) as third:
        assert hub.people == {1, 2}
        hub.end_where(lambda channel, who: (channel, who) == ("a", 1))
        for channel in "ab":
            hub.publish(channel, b"one")
        assert [await viewer.next() for viewer in (first, second, third)] == [None, b"one", b"one"]


async def test_closing_ends_all_streams_and_those_that_come_later() -> None:
    hub = Hub[str]()
    with hub.viewer("a") as viewer:
        hub.close()
        assert await viewer.next() is None
    with hub.viewer("a") as late:
        assert await late.next() is None
