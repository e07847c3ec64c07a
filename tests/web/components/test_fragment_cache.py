"""The cache of rendered fragments."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import time_machine
from django.core.cache import caches

from dashboard.web.components.fragment_cache import FragmentCache

OPTIONS = {"TIMEOUT": 3600, "OPTIONS": {"MAX_ENTRIES": 3}}


@pytest.fixture
def fragments() -> FragmentCache:
    fragment_cache = FragmentCache("", OPTIONS)
    fragment_cache.clear()
    return fragment_cache


def test_entry_is_shared_by_all_threads(fragments: FragmentCache) -> None:
    """Django has an instance for each of them."""
    fragments.set("row", "text")

    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(lambda: caches["default"].get("row")).result() == "text"


def test_other_value_is_returned_as_it_is(fragments: FragmentCache) -> None:
    statuses = ["new_status"]
    fragments.set("statuses", statuses)

    assert fragments.get("statuses") is statuses


@pytest.mark.parametrize(("timeout", "days"), [(60, 0), (None, 400)])
def test_entry_expires_after_its_timeout(
    fragments: FragmentCache, timeout: float | None, days: int
) -> None:
    with time_machine.travel("2026-03-01T12:00Z", tick=False) as clock:
        fragments.set("row", "text", timeout)
        clock.shift(timedelta(days=days, seconds=59))
        assert fragments.get("row") == "text"
        clock.shift(timedelta(seconds=1))
        assert fragments.get("row") == (None if timeout else "text")


def test_entry_written_longest_ago_is_dropped(fragments: FragmentCache) -> None:
    for key in "abc":
        fragments.set(key, key)
    fragments.set("a", "again")
    fragments.set("d", "d")

    assert fragments.get_many("abcd") == {"a": "again", "c": "c", "d": "d"}


def test_clear_drops_all_entries(fragments: FragmentCache) -> None:
    fragments.set_many({"1": "one", "2": "two"})
    fragments.clear()

    assert fragments.get_many("12") == {}
