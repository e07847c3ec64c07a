"""`manage.py notify --test`."""

import io

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from tests.support.notices import SECRET, Receiver


def test_each_channel_gets_a_test(receiver: Receiver, settings: Settings) -> None:
    address = f"webhook+http://{SECRET}@{receiver.address}/"
    settings.NOTIFY_URLS = {"good": address, "bad": f"webhook+http://{SECRET}@127.0.0.1:1/planted"}
    out, err = io.StringIO(), io.StringIO()
    with pytest.raises(SystemExit, match="1"):
        call_command("notify", "--test", stdout=out, stderr=err)
    assert out.getvalue() == "good: sent\n"
    assert err.getvalue() == "bad: The receiver could not be reached.\n"
    call_command("notify", "--test", "good", stdout=out)
    assert len(receiver.requests) == 2


def test_without_channels_says_so(settings: Settings) -> None:
    settings.NOTIFY_URLS = {}
    with pytest.raises(CommandError, match="NOTIFY_URLS is not set"):
        call_command("notify", "--test")
