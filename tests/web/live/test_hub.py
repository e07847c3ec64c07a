"""The hub: limited in size, shared, and removed when closed."""

import asyncio
import contextlib

import pytest

from dashboard.web.live.hub import (
    MAX_QUEUED,
    STREAM_LIFETIME,
    Hub,
)

pytestmark = pytest.mark.anyio


async def test_publish_reaches_only_viewers_of_channel() -> None:
    hub = Hub[str, int]()
    with (
        hub.subscribe("a", 1) as first,
        hub.subscribe("a", 1) as second,
        hub.subscribe("b", 1) as other,
    ):
        hub.publish("a", b"one")
        hub.publish("b", b"two")
        received = [await viewer.next() for viewer in (first, second, other)]
    assert received == [b"one", b"one", b"two"]
    assert received[0] is received[1]  # the same bytes, whatever the number of viewers


async def test_channels_lists_only_channels_with_viewers() -> None:
    hub = Hub[str, int]()
    with hub.subscribe("a", 1):
        with hub.subscribe("a", 1), hub.subscribe("b", 1):
            assert sorted(hub.channels) == ["a", "b"]
            assert hub.viewers == 3
        assert hub.channels == ["a"]
    assert hub.channels == []
    hub.publish("a", b"unheard")


async def test_slow_viewer_receives_queued_messages_then_end() -> None:
    hub = Hub[str, int]()
    with hub.subscribe("a", 1) as slow:
        for number in range(MAX_QUEUED + 10):
            hub.publish("a", b"%d" % number)
        received = []
        while (message := await slow.next()) is not None:
            received.append(message)
        assert received == [b"%d" % number for number in range(MAX_QUEUED)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):  # queued messages are returned without waiting
                await slow.next()


async def test_viewer_stream_ends_after_maximum_lifetime() -> None:
    hub = Hub[str, int]()
    with hub.subscribe("a", 1) as viewer:
        later = asyncio.get_running_loop().time() + STREAM_LIFETIME[1] + 1
        viewer.put(b"unheard", later)
        assert await viewer.next() is None


async def test_close_streams_ends_only_matching_streams() -> None:
    hub = Hub[str, int]()
    with (
        hub.subscribe("a", 1) as first,
        hub.subscribe("a", 2) as second,
        hub.subscribe("b", 1) as third,
    ):
        assert hub.sessions == {1, 2}
        hub.close_streams(lambda channel, session: (channel, session) == ("a", 1))
        hub.close_streams(lambda channel, _session: channel == "b", b"last")
        for channel in "ab":
            hub.publish(channel, b"one")
        assert [await viewer.next() for viewer in (first, second, third)] == [None, b"one", b"last"]
        assert await third.next() is None


async def test_close_ends_current_and_later_streams() -> None:
    hub = Hub[str, int]()
    with hub.subscribe("a", 1) as viewer:
        hub.close()
        assert await viewer.next() is None
    with hub.subscribe("a", 1) as later:
        assert await later.next() is None


async def test_hub_is_full_for_an_account_with_many_streams_in_many_sessions() -> None:
    hub = Hub[str, tuple[str, int]](lambda session: session[0])
    with contextlib.ExitStack() as stack:
        for number in range(50):
            assert not hub.is_full(("ada", number))
            stack.enter_context(hub.subscribe("a", ("ada", number)))
        assert (hub.is_full(("ada", -1)), hub.is_full(("grace", -1))) == (True, False)
        with hub.subscribe("a", ("ada", -1)) as late:  # opened in the same moment as the last one
            assert await asyncio.wait_for(late.next(), 1) is None
    assert not hub.is_full(("ada", -1))


async def test_hub_is_full_with_many_streams_of_all() -> None:
    hub = Hub[str, int]()
    with contextlib.ExitStack() as stack:
        for number in range(Hub.max_streams):
            stack.enter_context(hub.subscribe("a", number))
        assert hub.is_full(-1)
