"""Now: what needs somebody stands first, each run once, and what is well is said."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from selectolax.lexbor import LexborHTMLParser

from dashboard.accounts import permissions
from dashboard.models import CatalogueSweep, Grant, Run, Stage
from dashboard.models.typical_duration import Overdue
from dashboard.runs import alerts
from dashboard.runs.overdue import Why
from dashboard.web.components import run_row
from dashboard.web.pages.now import MOST_IN_FLIGHT
from tests.support import factories
from tests.support.html import See, one, parsed, words
from tests.support.live import Live
from tests.support.stream import about, listening

MINUTE = timedelta(minutes=1)


def at(minutes: float) -> Any:
    return timezone.now() - minutes * MINUTE


def sections(html: LexborHTMLParser) -> dict[str, list[str | None]]:
    """The runs of each section of the page that has any."""
    found = {
        section.attributes["aria-labelledby"] or "": [
            row.attributes["data-run"] for row in section.css("tr[data-run]")
        ]
        for section in html.css("#live section")
    }
    return {name: runs for name, runs in found.items() if runs}


def counts(html: LexborHTMLParser) -> dict[str, str]:
    """What each heading says."""
    return {title.attributes["id"] or "": words(title) for title in html.css("#live h2[id]")}


def full(stage: Stage, by: User) -> None:
    """One run of every kind, made in no good order."""
    runs: list[tuple[str, dict[str, Any]]] = [
        ("young", {"created_at": at(1)}),
        ("approval", {"status": "approval_wait", "created_at": at(50)}),
        ("failed-before", {"status": "failure", "concluded_at": at(20)}),
        ("waits-late", {"overdue": 1, "overdue_why": Why.QUEUE, "created_at": at(9)}),
        ("failed-first", {"status": "failure", "concluded_at": at(10)}),
        ("late", {"overdue": 1, "overdue_why": Why.RUN, "created_at": at(40)}),
        ("old", {"created_at": at(30)}),
        ("slow-abort", {"status": "aborting", "aborting_level": 1, "created_at": at(41)}),
        ("far", {"overdue": 2, "overdue_why": Why.RUN, "created_at": at(90)}),
        ("failed-last", {"status": "failure", "concluded_at": at(2)}),
        ("stuck-abort", {"status": "aborting", "aborting_level": 2, "created_at": at(80)}),
        ("calm-abort", {"status": "aborting", "created_at": at(20)}),
        ("stopped", {"status": "failure", "concluded_at": at(3), "status_since": at(3)}),
        ("good", {"status": "success"}),
    ]
    made = {run_id: factories.run(stage, run_id, **fields) for run_id, fields in runs}
    factories.abort(
        made["stopped"], by, "concluded", outcome="failure", answer_status=200,
        requested_at=at(4), settled_at=at(3),
    )  # fmt: skip


def test_the_worst_stands_first_and_each_run_once(see: See, stage: Stage, manager: User) -> None:
    full(stage, manager)
    html = see("/")
    assert sections(html) == {
        "attention": [
            "stuck-abort", "far", "late", "slow-abort", "failed-last", "failed-first", "waits-late",
        ],
        "in-flight": ["approval", "young", "calm-abort", "old"],
        "aborted": ["stopped"],
        "failed": ["failed-before"],
    }  # fmt: skip


def test_headings_and_the_tab_count_the_same(see: See, stage: Stage, manager: User) -> None:
    full(stage, manager)
    html = see("/")
    assert counts(html) == {
        "attention": "Needs attention 7",
        "in-flight": "In flight 9 in 1 stage (5 above)",
        "aborted": "Aborted here in the last hour 1",
        "failed": "Failed in the last day 3 (2 above)",
    }
    assert words(one(html, "head title")).startswith("Abort overdue · Now (9) ·")
    # Three of the nine are aborting already.
    assert "6" in words(one(html, "[data-abort-all]"))


@pytest.mark.parametrize(
    ("levels", "title"),
    [
        ([], "Failed"),
        ([(1, 0)], "Overdue"),
        ([(1, 0), (0, 1)], "Overdue"),
        ([(0, 1)], "Aborting"),
        ([(1, 0), (0, 2)], "Abort overdue"),
        ([(1, 0), (0, 2), (2, 0)], "Abort overdue"),
    ],
)
def test_a_tab_begins_with_the_worst_of_the_page(
    levels: list[tuple[int, int]], title: str, see: See, stage: Stage
) -> None:
    factories.run(stage, status="failure")
    factories.run(stage, status="approval_wait")
    for overdue, aborting in levels:
        status = "aborting" if aborting else "running"
        factories.run(stage, status=status, overdue=overdue, aborting_level=aborting)
    assert words(one(see("/"), "head title")).startswith(f"{title} · Now (")


def test_a_failure_leaves_the_top_after_a_while(see: See, stage: Stage) -> None:
    run = factories.run(stage, "r-1", status="failure", concluded_at=at(1))
    assert sections(see("/")) == {"attention": ["r-1"]}
    factories.change(run, concluded_at=timezone.now() - alerts.JUST_NOW)
    assert sections(see("/")) == {"failed": ["r-1"]}


def test_all_can_be_selected_wherever_they_stand(see: See, stage: Stage) -> None:
    factories.run(stage, "late", overdue=1)
    factories.run(stage, "calm")
    html = see("/")
    assert len(html.css("input[type=checkbox][form=many]")) == 2
    # Above the bar, so that it shows where one of them can be selected.
    assert one(html, "#live > .many form#many")


def test_what_is_cut_is_said(see: See, stage: Stage) -> None:
    for _ in range(MOST_IN_FLIGHT + 1):
        factories.run(stage, overdue=1)
        factories.run(stage)
    html = see("/")
    assert [len(runs) for runs in sections(html).values()] == [MOST_IN_FLIGHT] * 2
    assert [words(cut) for cut in html.css("[data-cut]")] == [
        f"The {MOST_IN_FLIGHT} most overdue and most recent are shown.",
        f"The {MOST_IN_FLIGHT} most recent are shown.",
    ]


# --- All is well, or we cannot see ---------------------------------------------------------------


def empties(html: LexborHTMLParser) -> dict[str, str]:
    return {
        nothing.attributes["id"] or "": nothing.attributes["data-empty"] or ""
        for nothing in html.css("[data-empty]")
    }


def told(html: LexborHTMLParser, id: str) -> str:
    return words(one(html, f"#{id}"))


def test_all_is_well_says_what_was_looked_at_and_when(see: See, stage: Stage) -> None:
    long_ago = timezone.now() - timedelta(minutes=2)
    factories.stage("Staging", synced_at=long_ago)
    factories.stage("Development", has_flow=False, synced_at=at(900))
    html = see("/")
    assert empties(html) == {"nothing-in-flight": "all_well", "nothing-failed": "all_well"}
    said = told(html, "nothing-in-flight")
    assert said.startswith("Nothing is in flight. 2 stages looked at, the oldest ")
    when = one(html, "#nothing-in-flight time")
    assert when.attributes["datetime"] == long_ago.isoformat()
    assert "data-moment" in when.attributes


def test_calm_is_said_where_something_is_in_flight(see: See, run: Run) -> None:
    html = see("/")
    assert empties(html) == {"nothing-urgent": "all_well", "nothing-failed": "all_well"}
    assert told(html, "nothing-urgent").startswith("Nothing needs attention. 1 stage looked at, ")


def test_where_all_stands_above_that_is_said(see: See, stage: Stage) -> None:
    factories.run(stage, overdue=1)
    factories.run(stage, status="failure")
    assert empties(see("/")) == {"nothing-in-flight": "above", "nothing-failed": "above"}


def test_what_was_not_read_is_not_well(see: See, stage: Stage) -> None:
    factories.stage("Staging", synced_at=None)
    html = see("/")
    assert set(empties(html).values()) == {"cannot_see"}
    assert told(html, "nothing-in-flight") == "Nothing in flight was found so far."
    assert told(html, "nothing-failed") == "None that failed was found so far."


@pytest.mark.parametrize("address", ["/", "/board/"])
def test_what_was_not_read_is_told_in_amber_and_in_numbers(
    address: str, see: See, stage: Stage
) -> None:
    factories.stage("Staging", synced_at=None)
    line = one(see(address), "#as-of [data-incomplete]")
    assert words(line) == "Incomplete: 1 of 2 stages not read yet, all of Production read."
    assert line.attributes["data-tone"] == "warning"
    Stage.objects.update(synced_at=timezone.now())
    assert see(address).css("[data-incomplete]") == []


def test_nothing_is_calm_while_something_was_not_looked_at(see: See, run: Run) -> None:
    factories.stage("Staging", synced_at=None)
    html = see("/")
    assert "Nothing needs attention" not in words(one(html, "main"))
    assert told(html, "nothing-urgent").startswith("Nothing that needs attention was found so far.")
    assert [words(one(html, f"#{id} [data-so-far]")) for id in ("attention", "in-flight")] == [
        "so far",
        "so far",
    ]


def test_a_project_that_was_not_listed_may_hold_anything(see: See, run: Run) -> None:
    CatalogueSweep.objects.create(project=factories.project("other"), next_at=timezone.now())
    html = see("/")
    said = words(one(html, "[data-incomplete]"))
    assert said == "Incomplete: the pipelines of 1 project not listed yet."
    assert empties(html)["nothing-urgent"] == "cannot_see"


@pytest.mark.parametrize("in_flight", [True, False])
def test_old_news_are_not_well(in_flight: bool, see: See, stage: Stage) -> None:
    if in_flight:
        factories.run(stage)
    Stage.objects.update(promised_at=at(60))
    kinds = empties(see("/"))
    assert set(kinds.values()) == {"cannot_see"}


def test_nothing_exists_is_told_from_nothing_known(see: See, db: None) -> None:
    assert empties(see("/"))["nothing-in-flight"] == "cannot_see"
    factories.swept()
    html = see("/")
    assert empties(html)["nothing-in-flight"] == "nothing_exists"
    assert told(html, "nothing-in-flight") == "This token sees no pipeline."


def test_stages_without_a_flow_have_nothing_to_run(see: See, db: None) -> None:
    factories.stage(has_flow=False)
    assert empties(see("/"))["nothing-in-flight"] == "nothing_exists"


def test_who_may_see_nothing_is_told_so(client: Client, viewer: User, stage: Stage) -> None:
    permissions.keep_group()
    Grant.objects.all().delete()
    client.force_login(viewer)
    html = parsed(client.get("/"))
    assert empties(html)["nothing-in-flight"] == "nothing_seen"


# --- One row ------------------------------------------------------------------------------------


def test_a_row_says_where_and_has_no_empty_cell_for_a_step(see: See, run: Run) -> None:
    row = one(see("/"), "tr[data-run]")
    assert words(one(row, "td.where")) == "Shop / Checkout / Production"
    assert row.css(".step") == []


def test_a_known_step_stands_under_the_title(see: See, stage: Stage) -> None:
    factories.run(stage, step="migrate")
    assert words(one(one(see("/"), "tr[data-run] td.what"), ".step")) == "migrate"


def test_a_run_that_changes_tables_while_they_are_read_stands_once(
    stage: Stage, manager: User
) -> None:
    run = factories.run(stage)
    tables = [Run.objects.filter(pk=run.pk), Run.objects.all()]
    first, second = run_row.html_of_each(tables, permissions.rights(manager))
    assert (list(first), list(second)) == ([run.pk], [])


# --- Live ---------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "becomes",
    [{"overdue": 1}, {"overdue": 2}, {"status": "aborting", "aborting_level": 2}],
)
def test_what_belongs_elsewhere_has_the_page_fetch_itself(
    becomes: dict[str, Any], live: Live, viewer: User
) -> None:
    run = factories.run(factories.stage(), "r-1", overdue=Overdue.NO)
    with listening(live.person("viewer")) as stream:
        page = live.person("viewer").get("/")
        shape = one(LexborHTMLParser(page.text), "#as-of").attributes["data-shape"]
        factories.change(run, **becomes)
        heading = about(stream, "attention", "1")
        assert words(heading) == "Needs attention 1"
        page = live.person("viewer").get("/")
        assert one(LexborHTMLParser(page.text), "#as-of").attributes["data-shape"] != shape


@pytest.mark.django_db(transaction=True)
def test_a_worse_level_changes_the_shape_too(live: Live, viewer: User) -> None:
    run = factories.run(factories.stage(), "r-1", status="aborting", aborting_level=1)
    person = live.person("viewer")

    def shape() -> str | None:
        page = LexborHTMLParser(person.get("/").text)
        return one(page, "#as-of").attributes["data-shape"]

    before = shape()
    factories.change(run, aborting_level=2)
    assert shape() != before
