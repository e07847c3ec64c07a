"""Aborting as pages tell it: GET asks and never acts, POST acts and says what Northflank said."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Abort, Pipeline, Run, Stage
from dashboard.models.aborts import What
from tests.support import factories
from tests.support.flights import in_flight
from tests.support.html import HTMX, See, one, parsed, words
from tests.support.live import Live, token


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


def test_over_http_an_abort_is_answered_with_northflanks_badge(live: Live, manager: User) -> None:
    run = in_flight(live)
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
    assert "Abort accepted" in words(one(told, 'hx-partial[hx-target="#notices"]'))
    assert run.aborts.get().reason == "Stuck"


def test_over_http_the_runs_own_page_is_answered_with_its_card(live: Live, manager: User) -> None:
    run = in_flight(live)
    person = live.person("manager")
    here = live.base_url + factories.address(run)
    headers = {**HTMX, "HX-Current-URL": here, "X-CSRFToken": token(person)}
    form = {"reason": "Stuck"}
    answer = person.post(factories.address(run, "abort"), headers=headers, data=form)
    card = one(LexborHTMLParser(answer.text), "section.run")
    assert card.attributes["data-status"] == "aborting"
    assert card.css_first("[data-verdict]") is not None


def test_over_http_without_javascript_the_answer_is_a_redirect_with_a_notice(
    live: Live, manager: User
) -> None:
    run = in_flight(live)
    person = live.person("manager")
    form = {"csrfmiddlewaretoken": token(person), "pick": "Stuck"}
    answer = person.post(factories.address(run, "abort"), data=form)
    assert (answer.status_code, answer.headers["location"]) == (302, factories.address(run))
    html = parsed(person.get(answer.headers["location"]))
    assert "Abort accepted" in words(one(html, "#notices"))
    refresh = one(html, "noscript meta").attributes
    assert refresh["http-equiv"] == "refresh"
    assert refresh["content"] == f"3; url={factories.address(run)}"  # whatever follows a hash


def test_over_http_an_abort_that_has_ended_at_once_is_told_with_a_glyph_that_exists(
    live: Live, manager: User
) -> None:
    live.sandbox.choices["abort-answer"] = "aborted"
    run = in_flight(live)
    person = live.person("manager")
    form = {"csrfmiddlewaretoken": token(person), "reason": "with a nul \0 in it"}
    answer = person.post(factories.address(run, "abort"), data=form)
    html = parsed(person.get(answer.headers["location"]))
    assert words(one(html, "#notices")).startswith("Aborted")
    glyph = one(html, "#notices .notice > .glyph use").attributes["href"]
    assert glyph
    assert one(html, glyph).tag == "symbol"


# --- the reason --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "required"), [("Production", True), ("Staging", False)])
def test_production_asks_for_a_reason_and_says_so(
    name: str, required: bool, see: See, pipeline: Pipeline
) -> None:
    run = factories.run(factories.stage(name, of=pipeline))
    html = see(factories.address(run, "abort"), **HTMX)
    assert ("(required)" in words(one(html, ".reason legend"))) == required
    assert bool(html.css(".stakes")) == required


def test_without_a_reason_production_is_not_aborted_and_the_dialog_is_told(
    at_desk: Client, run: Run
) -> None:
    answer = at_desk.post(factories.address(run, "abort"), headers=HTMX)
    assert answer.status_code == 422
    assert answer.content.decode() == "Aborting a run in Production takes a reason."
    assert not run.aborts.exists()


@pytest.mark.parametrize("reason", ["", "   ", "\n\0 "])
def test_white_space_is_no_reason(reason: str, at_desk: Client, run: Run) -> None:
    answer = at_desk.post(factories.address(run, "abort"), {"reason": reason}, headers=HTMX)
    assert answer.status_code == 422


def test_the_page_comes_back_with_the_error_and_what_was_filled_in(
    at_desk: Client, run: Run
) -> None:
    answer = at_desk.post(factories.address(run, "abort"), {"reason": " "})
    html = parsed(answer)
    assert answer.status_code == 422
    assert "takes a reason" in words(one(html, "[data-error]"))
    assert one(html, "#reason").attributes["aria-invalid"] == "true"


def test_which_stages_take_a_reason_is_a_setting(
    see: See, pipeline: Pipeline, settings: Settings
) -> None:
    settings.ABORT_REASON_REQUIRED = ["Staging"]
    asked = {
        name: "(required)" in words(one(see(factories.address(run, "abort")), ".reason legend"))
        for name in ("Staging", "Production")
        for run in [factories.run(factories.stage(name, of=pipeline))]
    }
    assert asked == {"Staging": True, "Production": False}


@pytest.mark.parametrize(
    ("pick", "text", "kept"),
    [("Stuck", "", "Stuck"), ("", "hm", "hm"), ("Incident", " INC-7 ", "Incident: INC-7")],
)
def test_a_quick_pick_a_text_or_both_make_the_reason(
    live: Live, manager: User, pick: str, text: str, kept: str
) -> None:
    run = in_flight(live)
    data = {"pick": pick, "reason": text, "csrfmiddlewaretoken": token(live.person("manager"))}
    person = live.people[-1]
    assert person.post(factories.address(run, "abort"), data=data).status_code == 302
    assert run.aborts.get().reason == kept


# --- an abort that does not end ----------------------------------------------------------------


def overdue(run: Run, by: User, level: int, **fields: Any) -> Abort:
    """An abort that has been under way for a quarter of an hour, and told as such."""
    then = timezone.now() - timedelta(minutes=15)
    abort = factories.abort(run, by, requested_at=then, sent_at=then, answered_at=then, **fields)
    factories.change(run, status="aborting", aborting_level=level, status_since=then)
    return abort


def test_a_calm_abort_has_no_button_and_no_next_steps(see: See, run: Run, manager: User) -> None:
    overdue(run, manager, 1)
    html = see(factories.address(run))
    assert html.css("[data-abort], .next-steps") == []
    assert "longer than 3 min" in words(one(html, ".abort-line"))


def test_one_that_is_red_can_be_tried_again_and_says_what_else_can_be_done(
    see: See, run: Run, stage: Stage, manager: User
) -> None:
    overdue(run, manager, 2)
    factories.run(stage, status="queued", name="Hotfix", started_at=None, created_at=timezone.now())
    html = see(factories.address(run))
    assert words(one(html, "[data-abort]")) == "Try again"
    steps = words(one(html, ".next-steps"))
    assert "1 run waits behind it: Hotfix." in steps
    assert all(part in steps for part in ("Run: r-1", "Project: shop", "Stage: Production"))


def test_the_text_for_support_has_ids_and_times_and_neither_name_nor_reason(
    see: See, run: Run, manager: User
) -> None:
    overdue(run, manager, 2, reason="secret plan", error_id="err-42", answer="aborting")
    text = one(see(factories.address(run)), "#support-text").text()
    assert "Error id: err-42" in text
    assert "UTC" in text
    assert "secret plan" not in text
    assert "manager" not in text


def test_a_viewer_sees_the_next_steps_and_who_can_try_again(
    looking_on: Client, run: Run, manager: User
) -> None:
    overdue(run, manager, 2)
    html = parsed(looking_on.get(factories.address(run)))
    assert "disabled" in one(html, "[data-abort]").attributes
    assert "Release managers" in words(one(html, ".next-steps"))


def test_asking_to_try_again_says_that_the_run_is_read_first(
    see: See, run: Run, manager: User
) -> None:
    abort = overdue(run, manager, 2)
    html = see(factories.address(run, "abort"), **HTMX)
    assert words(one(html, "h1")) == "Try again to abort “Nightly”?"
    assert "read again first" in words(html)
    assert one(html, "[name=again]").attributes["value"] == str(abort.pk)


def test_an_abort_from_elsewhere_that_is_red_can_be_tried_from_here(see: See, run: Run) -> None:
    then = timezone.now() - timedelta(minutes=15)
    factories.change(run, status="aborting", aborting_level=2, status_since=then)
    html = see(factories.address(run))
    assert "not asked for here" in words(one(html, ".abort-line"))
    assert words(one(html, "[data-abort]")) == "Try again"


# --- what is said of it ------------------------------------------------------------------------


def test_the_runs_page_tells_the_whole_trail(see: See, run: Run, manager: User) -> None:
    abort = factories.abort(run, manager, reason="Stuck")
    for what in (What.REQUESTED, What.SENT):
        abort.note(what, timezone.now())
    lines = [words(line) for line in see(factories.address(run)).css(".trail li bdi")]
    assert lines == ["Requested by manager: “Stuck”.", "Sent to Northflank."]


def test_a_run_that_was_not_stopped_says_so_loudly_in_row_and_page(
    see: See, stage: Stage, manager: User
) -> None:
    run = factories.run(stage, status="success")
    factories.abort(run, manager, "concluded", outcome="success", settled_at=timezone.now())
    for address in (factories.address(stage), factories.address(run)):
        line = one(see(address), ".abort-line[data-loud]")
        assert "Not stopped: the run ended as success" in words(line)
        assert line.attributes["data-tone"] == "bad"


def test_an_abort_taken_for_lost_that_shows_its_effect_is_no_strangers(
    see: See, run: Run, stage: Stage, manager: User
) -> None:
    factories.abort(run, manager, "unknown", settled_at=timezone.now(), answered_at=None)
    factories.change(run, status="aborting", status_since=timezone.now())
    for address in (factories.address(stage), factories.address(run)):
        told = words(one(see(address), ".abort-line"))
        assert "It was taken for lost, and now Northflank says aborting." in told
        assert "not asked for here" not in told


def test_an_abort_that_was_never_sent_cannot_be_tried_again(
    see: See, run: Run, manager: User
) -> None:
    overdue(run, manager, 2, state="requested")
    assert see(factories.address(run)).css("[data-abort], .next-steps") == []
