"""Hostile names: external text has no effect except as text."""

import msgspec
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.models import Run, Stage
from tests.support import factories
from tests.support.factories import HOSTILE
from tests.support.html import HTMX, parse_html, select_one, text_of
from tests.support.pages import address_of


@pytest.fixture
def run_with_hostile_text(manager: User) -> Run:
    """A run with hostile text in all its fields, and in all related rows."""
    project = factories.project("a/<b>", name=HOSTILE)
    pipeline = factories.pipeline("c&d", parent=project, name=HOSTILE)
    stage = factories.stage(
        parent=pipeline,
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
        detail_synced_at=timezone.now(),
    )
    ended_run = factories.run(stage, "'\"><x", status="failure", name=HOSTILE)
    factories.abort(
        ended_run, manager, "refused",
        reason=HOSTILE, response=HOSTILE, username=HOSTILE, settled_at=timezone.now(),
    )  # fmt: skip
    factories.upstream_error(HOSTILE)
    return run


@pytest.mark.parametrize("name", ["now", "board", "pipeline", "stage", "run", "abort"])
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_page_with_hostile_text_escapes_it(
    name: str, headers: dict[str, str], run_with_hostile_text: Run, operator_client: Client
) -> None:
    html = parse_html(operator_client.get(address_of(name, run_with_hostile_text), headers=headers))
    assert html.css("#hostile, script:not([src]):not(#time-texts), x") == []
    assert HOSTILE[:60] in html.html or html.css("bdi") != []
    assert any(HOSTILE[:60] in (element.text() or "") for element in html.css("bdi"))


def test_skipped_run_with_hostile_name_is_escaped(
    run_with_hostile_text: Run, operator_client: Client
) -> None:
    Stage.objects.update(concurrency_policy="forbid")
    factories.run(
        run_with_hostile_text.stage,
        status="skipped",
        name=HOSTILE,
        started_at=None,
        created_at=timezone.now(),
    )
    html = parse_html(operator_client.get(factories.address(run_with_hostile_text)))
    assert html.css("#hostile, script:not([src]):not(#time-texts), x") == []
    assert HOSTILE[:60] in select_one(html, "[data-skipped] a bdi").text()


@pytest.mark.parametrize("name", ["run", "abort"])
def test_page_title_with_hostile_name_is_escaped(
    name: str, run_with_hostile_text: Run, operator_client: Client
) -> None:
    html = parse_html(operator_client.get(address_of(name, run_with_hostile_text)))
    assert select_one(html, "head title").text().rstrip().endswith("Release flows")
    assert '<b id="hostile">' in select_one(html, "head title").text()


@pytest.mark.parametrize("name", ["now", "stage", "run"])
def test_abort_button_label_with_hostile_name_is_escaped(
    name: str, run_with_hostile_text: Run, operator_client: Client
) -> None:
    html = parse_html(operator_client.get(address_of(name, run_with_hostile_text)))
    label = HOSTILE.replace("\u202e", "")  # test_direction.py
    assert select_one(html, "[data-abort]").attributes["aria-label"] == f"Abort {label}"
    assert (
        select_one(html, '[data-abort][aria-label^="Abort"]')
        .attributes.keys()
        .isdisjoint({"onclick", "script"})
    )


def test_run_element_attributes_hold_hostile_text_unchanged(
    run_with_hostile_text: Run, operator_client: Client
) -> None:
    element = select_one(
        parse_html(operator_client.get(factories.address(run_with_hostile_text))), "section.run"
    )
    assert element.attributes["data-run"] == run_with_hostile_text.run_id
    assert element.attributes["data-status"] == HOSTILE
    assert (element.attributes["id"] or "").startswith("run-x-")


def test_address_with_markup_is_escaped(operator_client: Client) -> None:
    html = parse_html(operator_client.get("/runs/<b id=hostile>x/"))
    assert html.css("#hostile") == []
    assert "<b id=hostile>x" in text_of(select_one(html, "[data-reason]"))


def test_filter_with_markup_is_escaped(run_with_hostile_text: Run, operator_client: Client) -> None:
    html = parse_html(
        operator_client.get(
            f"{factories.address(run_with_hostile_text.stage)}?from=<b id=hostile>&before=<i>"
        )
    )
    assert html.css("#hostile, main i") == []
    assert len(html.css("main > .inline-notice")) == 2
