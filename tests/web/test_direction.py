"""Names with controls of direction: nothing has them where nothing isolates them."""

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.support.html import parse_html
from tests.support.states import LONG_TEXTS, create_long_texts

# Each control of direction that is not undone, then markup, so that escaping shows.
NAME = "\u202a\u202b\u202d\u202e\u2066\u2067\u2068" + "gnp.<b>exe"
CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")
READ_OUT = ("title", "aria-label", "aria-description", "alt", "placeholder", "data-title")


@pytest.fixture
def places(manager: User, viewer: User) -> dict[str, object]:
    return create_long_texts(NAME)


@pytest.mark.slow
def test_no_attribute_title_or_text_to_copy_has_controls_of_direction(
    places: dict[str, object],
) -> None:
    wrong = []
    for state in LONG_TEXTS:
        client = Client()
        if state.username:
            client.force_login(User.objects.get(username=state.username))
        html = parse_html(client.get(state.address.format(**places)))
        texts = [
            (element.tag, element.text())
            for element in html.css("title, option, textarea, .support")
        ]
        texts += [
            (f"{element.tag} {name}", value)
            for element in html.css("*")
            for name, value in element.attributes.items()
            if name in READ_OUT and value
        ]
        wrong += [f"{state}: {place}: {text!r}" for place, text in texts if CONTROLS.search(text)]
    assert not wrong, "\n".join(wrong)
