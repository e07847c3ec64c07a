"""Macros of templates/jinja2/: what they insert is escaped, a missing name is an error."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from django.template import engines
from jinja2 import UndefinedError

from dashboard.models import Abort
from dashboard.web.components import macros
from dashboard.web.components.runs.abort_line import AbortLine
from tests.support.factories import HOSTILE

REQUESTED_AT = datetime(2026, 3, 1, 10, tzinfo=UTC)


def test_macro_escapes_what_it_inserts() -> None:
    badge = SimpleNamespace(tone=HOSTILE, description=HOSTILE, glyph=HOSTILE, label=HOSTILE)
    markup = macros.render("run_row.html#badge", badge)
    assert "<script" not in markup
    assert "<b id" not in markup
    assert markup.count('"') == 12  # those of the six attributes: none of the values


def test_macro_with_missing_attribute_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="tone"):
        macros.render("run_row.html#badge", SimpleNamespace(description="", glyph="", label=""))


def test_text_may_contain_markup_but_what_it_names_is_escaped() -> None:
    message = SimpleNamespace(tone="bad", glyph="stop", is_unexpected=False, text="Lost.")
    abort = Abort(username="<b>anna", requested_at=REQUESTED_AT)
    line = AbortLine(message, abort, None)  # type: ignore[arg-type]
    markup = macros.render("run_row.html#abort_line", line)
    assert "Requested by <bdi>&lt;b&gt;anna</bdi>, <time" in markup


def test_django_template_shows_a_macro_unescaped_with_escaped_values() -> None:
    template = engines["django"].from_string(
        "{% load dashboard %}"
        '{% render_macro "abort_row.html#requester" requested requested.via_label %}'
    )
    requested = SimpleNamespace(username="<b>anna", via_label="via dashboard", client_address="")
    markup = template.render({"requested": requested})
    assert markup == ('<bdi>&lt;b&gt;anna</bdi> <bdi class="muted">via dashboard</bdi>\n')
