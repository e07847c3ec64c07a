"""Labels of browsers from their User-Agent, which may be any text."""

import pytest
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from dashboard.models.accounts.sessions import LABEL_LENGTH
from dashboard.web.http.authentication.session_events import browser_label


def describe(user_agent: str) -> str:
    return browser_label(RequestFactory(headers={"User-Agent": user_agent}).get("/"))


WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
CHROME = f"{WEBKIT} Chrome/140.0.0.0"


@pytest.mark.parametrize(
    ("user_agent", "label"),
    [
        (f"Mozilla/5.0 (Windows NT 10.0) {CHROME} Safari/537.36 Edg/140.0.0.0", "Edge, Windows"),
        (f"Mozilla/5.0 (X11; Linux x86_64) {CHROME} Safari/537.36", "Chrome, Linux"),
        (f"Mozilla/5.0 (Linux; Android 15) {CHROME} Mobile Safari/537.36", "Chrome, Android"),
        ("Mozilla/5.0 (Macintosh; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox, macOS"),
        (f"Mozilla/5.0 (iPhone; like Mac OS X) {WEBKIT} Safari/604.1", "Safari, iPhone"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("  two\twords\u202e ", "two words"),
        ("", ""),
    ],
)
def test_label_names_browser_and_system(user_agent: str, label: str) -> None:
    assert describe(user_agent) == label


@given(st.text())
def test_label_of_any_text_is_short_and_printable(user_agent: str) -> None:
    label = describe(user_agent)
    assert len(label) <= LABEL_LENGTH
    assert label.isprintable()
