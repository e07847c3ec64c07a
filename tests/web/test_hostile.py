"""Names are other people's text: they change nothing but text."""

import msgspec
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.models import Run, Stage
from tests.support import factories
from tests.support.factories import HOSTILE
from tests.support.html import HTMX, one, parsed, words
from tests.support.pages import address_of


@pytest.fixture
def hostile(manager: User) -> Run:
    """A run whose every text, and that of all around it, is hostile."""
    project = factories.project("a/<b>", name=HOSTILE)
    pipeline = factories.pipeline("c&d", of=project, name=HOSTILE)
    stage = factories.stage(
        of=pipeline,
        error="x",
        error_message=HOSTILE,
        error_since=timezone.now(),
        concurrency_policy=HOSTILE,
    )
    root = factories.node(
        HOSTILE, label=HOSTILE, status=HOSTILE, error_message=HOSTILE, started_at=timezone.now()
    )
    run = factories.run(
        stage,
        HOSTILE[:200],
        status=HOSTILE,
        name=HOSTILE,
        description=HOSTILE,
        step=HOSTILE,
        steps=msgspec.to_builtins(root),
        detail_seen_at=timezone.now(),
    )
    ended = factories.run(stage, "'\"><x", status="failure", name=HOSTILE)
    factories.abort(
        ended, manager, "refused",
        reason=HOSTILE, answer=HOSTILE, username=HOSTILE, settled_at=timezone.now(),
    )  # fmt: skip
    factories.trouble(HOSTILE)
    return run


@pytest.mark.parametrize("name", ["now", "board", "pipeline", "stage", "run", "abort"])
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_hostile_text_stays_text(
    name: str, headers: dict[str, str], hostile: Run, at_desk: Client
) -> None:
    html = parsed(at_desk.get(address_of(name, hostile), headers=headers))
    assert html.css("#hostile, script:not([src]):not(#words), x") == []
    assert HOSTILE[:60] in html.html or html.css("bdi") != []
    assert any(HOSTILE[:60] in (element.text() or "") for element in html.css("bdi"))


def test_the_names_of_what_was_dropped_are_text_too(hostile: Run, at_desk: Client) -> None:
    Stage.objects.update(concurrency_policy="forbid")
    dropped = factories.run(
        hostile.stage, status="skipped", name=HOSTILE, started_at=None, created_at=timezone.now()
    )
    for run, selector in ((hostile, "[data-swallowed]"), (dropped, "[data-dropped-for]")):
        html = parsed(at_desk.get(factories.address(run)))
        assert html.css("#hostile, script:not([src]):not(#words), x") == []
        assert HOSTILE[:60] in one(html, f"{selector} a bdi").text()


@pytest.mark.parametrize("name", ["run", "abort"])
def test_the_title_of_the_page_is_text_too(name: str, hostile: Run, at_desk: Client) -> None:
    html = parsed(at_desk.get(address_of(name, hostile)))
    assert one(html, "head title").text().rstrip().endswith("Release flows")
    assert '<b id="hostile">' in one(html, "head title").text()


@pytest.mark.parametrize("name", ["now", "stage", "run"])
def test_the_buttons_name_is_the_runs_name(name: str, hostile: Run, at_desk: Client) -> None:
    html = parsed(at_desk.get(address_of(name, hostile)))
    assert one(html, "[data-abort]").attributes["aria-label"] == f"Abort {HOSTILE}"
    assert (
        one(html, '[data-abort][aria-label^="Abort"]')
        .attributes.keys()
        .isdisjoint({"onclick", "script"})
    )


def test_the_attributes_of_the_contract_hold_the_very_text(hostile: Run, at_desk: Client) -> None:
    element = one(parsed(at_desk.get(factories.address(hostile))), "section.run")
    assert element.attributes["data-run"] == hostile.run_id
    assert element.attributes["data-status"] == HOSTILE
    assert (element.attributes["id"] or "").startswith("run-x-")


def test_an_address_with_markup_is_told_as_text(at_desk: Client) -> None:
    html = parsed(at_desk.get("/runs/<b id=hostile>x/"))
    assert html.css("#hostile") == []
    assert "<b id=hostile>x" in words(one(html, "[data-why]"))


def test_a_filter_with_markup_is_told_as_text(hostile: Run, at_desk: Client) -> None:
    html = parsed(at_desk.get(f"{factories.address(hostile.stage)}?status=<b id=hostile>&page=<i>"))
    assert html.css("#hostile, main i") == []
    assert len(html.css("main > .trouble")) == 2
