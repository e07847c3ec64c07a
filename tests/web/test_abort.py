"""Aborting as pages tell it: GET asks and never acts, POST acts and says what Northflank said."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Run, Stage
from tests.live import Live, token
from tests.web import factories
from tests.web.conftest import HTMX, See, one, parsed, words


def test_asking_names_the_run_and_its_place_and_does_nothing(see: See, run: Run) -> None:
    html = see(factories.address(run, "abort"))
    assert words(one(html, "h1")) == "Abort “Nightly”?"
    facts = words(one(html, "main .facts"))
    assert all(part in facts for part in ("Shop", "Checkout", "Production", "r-1", "Running"))
    form = one(html, "main form")
    assert (form.attributes["method"], form.attributes["action"]) == (
        "post",
        factories.address(run, "abort"),
    )
    assert one(form, '[name="csrfmiddlewaretoken"]').attributes["value"]
    assert one(html, "main [autofocus]").attributes["href"] == factories.address(run)
    assert not run.aborts.exists()


def test_the_dialog_is_the_question_alone_with_the_focus_on_staying(see: See, run: Run) -> None:
    answer = see(factories.address(run, "abort"), **HTMX)
    assert answer.css("header, nav, main") == []
    assert words(one(answer, "[autofocus]")) == "Keep running"
    # Its answer says itself what it changes: the run's row may have left the page meanwhile.
    assert one(answer, "form").attributes["hx-swap"] == "none"


@pytest.mark.parametrize("status", ["success", "aborted", "failure", "aborting"])
def test_there_is_no_form_where_there_is_nothing_to_abort(
    status: str, see: See, stage: Stage
) -> None:
    run = factories.run(stage, status=status)
    for headers in ({}, HTMX):
        html = see(factories.address(run, "abort"), **headers)
        assert html.css("form[action$='/abort/']") == []
        assert words(one(html, "[data-why]"))


def test_a_viewer_is_told_why_instead_of_asked(looking_on: Client, run: Run) -> None:
    html = parsed(looking_on.get(factories.address(run, "abort")))
    assert html.css("form[action$='/abort/']") == []
    assert "Release managers" in words(one(html, "[data-why]"))


def test_pressing_on_a_run_that_has_ended_sends_nothing_and_says_so(
    at_desk: Client, stage: Stage
) -> None:
    run = factories.run(stage, status="success")
    answer = at_desk.post(factories.address(run, "abort"), follow=True)
    assert "already ended; nothing was sent" in words(one(parsed(answer), "#notices"))
    assert not run.aborts.exists()


def _in_flight(live: Live) -> Run:
    live.sync()
    run = Run.objects.in_flight().exclude(status="aborting").with_place().order_by("pk").first()
    assert run is not None
    return run


def test_over_http_an_abort_is_answered_with_northflanks_badge(live: Live, manager: User) -> None:
    run = _in_flight(live)
    person = live.person("manager")
    headers = {**HTMX, "HX-Current-URL": live.base_url + "/", "X-CSRFToken": token(person)}
    answer = person.post(factories.address(run, "abort"), headers=headers, data={"reason": "Stuck"})
    element = answer.text.partition('hx-swap="outerMorph">')[2].partition("</hx-partial>")[0]
    row = one(LexborHTMLParser(f"<table>{element}</table>"), "tr[data-run]")
    assert answer.status_code == 200
    assert row.attributes["data-status"] == "aborting"
    assert words(one(row, ".status [data-badge]")) == "Aborting"
    told = LexborHTMLParser(answer.text.replace("<tr", "<div").replace("<td", "<div"))
    assert one(told, f'hx-partial[hx-target="#{row.attributes["id"]}"]')
    assert "accepted the abort" in words(one(told, 'hx-partial[hx-target="#notices"]'))
    assert run.aborts.get().reason == "Stuck"


def test_over_http_the_runs_own_page_is_answered_with_its_card(live: Live, manager: User) -> None:
    run = _in_flight(live)
    person = live.person("manager")
    here = live.base_url + factories.address(run)
    headers = {**HTMX, "HX-Current-URL": here, "X-CSRFToken": token(person)}
    answer = person.post(factories.address(run, "abort"), headers=headers)
    card = one(LexborHTMLParser(answer.text), "section.run")
    assert card.attributes["data-status"] == "aborting"
    assert card.css_first("[data-verdict]") is not None


def test_over_http_without_javascript_the_answer_is_a_redirect_with_a_notice(
    live: Live, manager: User
) -> None:
    run = _in_flight(live)
    person = live.person("manager")
    form = {"csrfmiddlewaretoken": token(person)}
    answer = person.post(factories.address(run, "abort"), data=form)
    assert (answer.status_code, answer.headers["location"]) == (302, factories.address(run))
    html = parsed(person.get(answer.headers["location"]))
    assert "accepted the abort" in words(one(html, "#notices"))
    assert one(html, "noscript meta").attributes["http-equiv"] == "refresh"


def test_over_http_an_abort_that_has_ended_at_once_is_told_with_a_glyph_that_exists(
    live: Live, manager: User
) -> None:
    live.sandbox.choices["abort-answer"] = "aborted"
    run = _in_flight(live)
    person = live.person("manager")
    form = {"csrfmiddlewaretoken": token(person), "reason": "with a nul \0 in it"}
    answer = person.post(factories.address(run, "abort"), data=form)
    html = parsed(person.get(answer.headers["location"]))
    assert words(one(html, "#notices")).startswith("Aborted")
    glyph = one(html, "#notices .notice > .glyph use").attributes["href"]
    assert glyph
    assert one(html, glyph).tag == "symbol"
