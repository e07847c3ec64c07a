"""The Now page: runs that need attention first, each run once, and a text if all is well."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from selectolax.lexbor import LexborHTMLParser

from dashboard.accounts import permissions
from dashboard.models import Grant, Run, Stage
from dashboard.models.severity import Severity
from dashboard.runs import attention
from dashboard.runs.overdue import OverdueReason
from tests.support import factories
from tests.support.html import GetPage, parse_html, select_one, text_of
from tests.support.live import Live
from tests.support.stream import next_parts, open_stream

MINUTE = timedelta(minutes=1)


def minutes_ago(minutes: float) -> Any:
    return timezone.now() - minutes * MINUTE


def run_ids_by_section(html: LexborHTMLParser) -> dict[str, list[str | None]]:
    """The runs of each section of the page that has any."""
    run_ids = {
        section.attributes["aria-labelledby"] or "": [
            row.attributes["data-run"] for row in section.css("tr[data-run]")
        ]
        for section in html.css("#live section:not([hidden])")
    }
    return {name: runs for name, runs in run_ids.items() if runs}


def heading_texts(html: LexborHTMLParser) -> dict[str, str]:
    """The text of each heading."""
    titles = html.css("#live section:not([hidden]) h2[id]")
    return {title.attributes["id"] or "": text_of(title) for title in titles}


def create_runs_of_every_kind(stage: Stage, user: User) -> None:
    """Create one run of every kind, in no particular order."""
    runs: list[tuple[str, dict[str, Any]]] = [
        ("young", {"created_at": minutes_ago(1)}),
        ("approval", {"status": "approval_wait", "created_at": minutes_ago(50)}),
        ("failed-before", {"status": "failure", "concluded_at": minutes_ago(20)}),
        (
            "waits-late",
            {
                "overdue_reason": OverdueReason.BLOCKED,
                "created_at": minutes_ago(9),
            },
        ),
        ("failed-first", {"status": "failure", "concluded_at": minutes_ago(10)}),
        (
            "late",
            {
                "overdue_severity": 1,
                "overdue_reason": OverdueReason.RUN,
                "created_at": minutes_ago(40),
            },
        ),
        ("old", {"created_at": minutes_ago(30)}),
        ("slow-abort", {"status": "aborting", "abort_severity": 1, "created_at": minutes_ago(41)}),
        (
            "far",
            {
                "overdue_severity": 2,
                "overdue_reason": OverdueReason.RUN,
                "created_at": minutes_ago(90),
            },
        ),
        ("failed-last", {"status": "failure", "concluded_at": minutes_ago(2)}),
        ("stuck-abort", {"status": "aborting", "abort_severity": 2, "created_at": minutes_ago(80)}),
        ("calm-abort", {"status": "aborting", "created_at": minutes_ago(20)}),
        (
            "stopped",
            {"status": "failure", "concluded_at": minutes_ago(3), "status_since": minutes_ago(3)},
        ),
        ("good", {"status": "success"}),
    ]
    run_by_id = {run_id: factories.run(stage, run_id, **fields) for run_id, fields in runs}
    factories.abort(
        run_by_id["stopped"], user, "concluded", outcome="failure", response_status=200,
        requested_at=minutes_ago(4), settled_at=minutes_ago(3),
    )  # fmt: skip


def test_now_page_orders_runs_by_severity_and_lists_each_once(
    get_page: GetPage, stage: Stage, manager: User
) -> None:
    create_runs_of_every_kind(stage, manager)
    html = get_page("/")
    assert run_ids_by_section(html) == {
        "attention": [
            "far", "stuck-abort", "failed-first", "failed-last", "slow-abort", "late",
        ],
        "in-flight": ["approval", "young", "calm-abort", "old", "waits-late"],
        "aborted": ["stopped"],
        "failed": ["failed-before"],
    }  # fmt: skip


def test_now_page_headings_and_tab_title_show_same_counts(
    get_page: GetPage, stage: Stage, manager: User
) -> None:
    create_runs_of_every_kind(stage, manager)
    html = get_page("/")
    assert heading_texts(html) == {
        "attention": "Needs attention 6",
        "in-flight": "In flight 9 in 1 stage (4 listed above)",
        "aborted": "Aborted here in the last hour 1",
        "failed": "Failed in the last day 3 (2 listed above)",
    }
    assert text_of(select_one(html, "head title")).startswith("Abort overdue · Now (6) ·")


def test_failed_run_leaves_attention_section_after_a_while(get_page: GetPage, stage: Stage) -> None:
    run = factories.run(stage, "r-1", status="failure", concluded_at=minutes_ago(1))
    assert run_ids_by_section(get_page("/")) == {"attention": ["r-1"]}
    factories.change(run, concluded_at=timezone.now() - attention.FAILURE_WINDOW)
    assert run_ids_by_section(get_page("/")) == {"failed": ["r-1"]}


def test_runs_of_all_sections_have_selection_checkbox(get_page: GetPage, stage: Stage) -> None:
    factories.run(stage, "late", overdue_severity=1)
    factories.run(stage, "calm")
    html = get_page("/")
    assert len(html.css("input[type=checkbox][form=bulk-abort-form]")) == 2
    # The last element, so that it covers no row at the end of the page.
    assert select_one(html, "#live > .bulk-abort-bar:last-child form#bulk-abort-form")


# --- All is well, or unknown ---------------------------------------------------------------------


def empty_states(html: LexborHTMLParser) -> dict[str, str]:
    return {
        element.attributes["id"] or "": element.attributes["data-empty"] or ""
        for element in html.css("section:not([hidden]) [data-empty]")
    }


def element_text(html: LexborHTMLParser, id: str) -> str:
    return text_of(select_one(html, f"#{id}"))


def test_empty_now_page_shows_no_runs_in_flight(get_page: GetPage, stage: Stage) -> None:
    factories.stage("Development", has_flow=False, synced_at=minutes_ago(900))
    html = get_page("/")
    assert empty_states(html) == {"empty-in-flight": "known", "empty-failed": "known"}
    assert element_text(html, "empty-in-flight") == "No runs in flight."


def test_now_page_without_alerts_shows_nothing_needs_attention(get_page: GetPage, run: Run) -> None:
    html = get_page("/")
    assert empty_states(html) == {"empty-attention": "known", "empty-failed": "known"}
    assert element_text(html, "empty-attention") == "Nothing needs attention."


def test_now_page_with_unread_stage_claims_nothing(get_page: GetPage, stage: Stage) -> None:
    factories.stage("Staging", synced_at=None)
    html = get_page("/")
    assert set(empty_states(html).values()) == {"cannot_see"}
    assert element_text(html, "empty-in-flight") == "So far: No runs in flight."
    assert element_text(html, "empty-failed") == "So far: No runs failed in the last day."


@pytest.mark.parametrize("address", ["/", "/board/"])
def test_page_with_unread_stage_warns_with_counts(
    address: str, get_page: GetPage, stage: Stage
) -> None:
    factories.stage("Staging", synced_at=None)
    line = select_one(get_page(address), "#data-age [data-incomplete]")
    assert text_of(line) == "Incomplete: 1 of 2 stages not read yet, Production complete."
    assert line.attributes["data-tone"] == "warning"
    Stage.objects.update(synced_at=timezone.now())
    assert get_page(address).css("[data-incomplete]") == []


def test_now_page_without_permissions_shows_nothing_visible(
    client: Client, viewer: User, stage: Stage
) -> None:
    permissions.ensure_default_group()
    Grant.objects.all().delete()
    client.force_login(viewer)
    html = parse_html(client.get("/"))
    assert empty_states(html)["empty-in-flight"] == "cannot_see"


# --- One row ------------------------------------------------------------------------------------


def test_run_row_shows_stage_and_no_empty_step(get_page: GetPage, run: Run) -> None:
    row = select_one(get_page("/"), "tr[data-run]")
    assert text_of(select_one(row, "td.subject .location-path")) == "Shop / Checkout / Production"
    assert row.css(".step") == []


def test_run_row_shows_step_below_its_status(get_page: GetPage, stage: Stage) -> None:
    factories.run(stage, step="migrate")
    assert (
        text_of(select_one(select_one(get_page("/"), "tr[data-run] td.status"), ".step"))
        == "migrate"
    )


def test_row_of_a_failed_run_shows_step_error_and_end(get_page: GetPage, stage: Stage) -> None:
    cause = {"failed_step": "migrate", "failed_step_error": "relation exists"}
    run = factories.run(stage, status="failure", concluded_at=minutes_ago(20), **cause)
    row = select_one(get_page("/"), "#section-failed tr[data-run]")
    assert row.attributes["data-failed-step"] == "migrate"
    assert text_of(select_one(row, ".step")) == "migrate: relation exists"
    assert run.concluded_at is not None
    time = select_one(row, "td.started .ended time")
    assert time.attributes["datetime"] == run.concluded_at.isoformat()


def test_row_of_a_failed_run_says_that_its_cause_is_not_known(
    get_page: GetPage, stage: Stage
) -> None:
    factories.run(stage, status="failure")
    row = select_one(get_page("/"), "tr[data-run]")
    assert "data-failed-step" not in row.attributes
    assert text_of(select_one(row, ".step")) == "Cause not read yet."


def fail_by_one_cause(stage: Stage, count: int) -> None:
    """Fail by one cause, run `r-0` last."""
    for number in range(count):
        factories.run(
            stage, f"r-{number}", name=f"Release {number}", status="failure",
            concluded_at=minutes_ago(20 + number),
            failed_step="migrate", failed_step_error=f"exit code {number}",
        )  # fmt: skip


def test_failures_of_one_cause_are_one_row_with_the_others_below(
    get_page: GetPage, stage: Stage
) -> None:
    fail_by_one_cause(stage, 4)
    html = get_page("/")
    assert run_ids_by_section(html) == {"failed": ["r-0"]}
    assert heading_texts(html)["failed"] == "Failed in the last day 4"
    others = select_one(html, "#section-failed details")
    assert text_of(select_one(others, "summary")) == "3 more with this cause"
    links = [(text_of(link), link.attributes["href"]) for link in others.css("li a")]
    runs = Run.objects.exclude(run_id="r-0").order_by("run_id")
    assert links == [(run.name, factories.address(run)) for run in runs]
    assert len(others.css("li time")) == 3


def test_queries_of_failures_do_not_depend_on_their_number(get_page: GetPage, stage: Stage) -> None:
    get_page("/")  # the first page of all reads what all have in common
    counts = []
    for number in (3, 30):
        Run.objects.all().delete()
        fail_by_one_cause(stage, number)
        cache.clear()
        with CaptureQueriesContext(connection) as queries:
            get_page("/")
        counts.append(len(queries))
    assert counts[1] <= counts[0]


# --- Live ---------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "becomes",
    [{"overdue_severity": 1}, {"overdue_severity": 2}, {"status": "aborting", "abort_severity": 2}],
)
def test_run_that_needs_attention_changes_both_sections_in_one_message(
    becomes: dict[str, Any], live: Live, viewer: User
) -> None:
    stage = factories.stage()
    run = factories.run(stage, "r-1", name="Nightly", overdue_severity=Severity.OK)
    with open_stream(live.sign_in("viewer")) as stream:
        factories.change(run, **becomes)
        parts = next_parts(stream, "section-attention", "Nightly")
        assert text_of(parts["section-attention"].css_first("h2")) == "Needs attention 1"
        assert parts["section-attention"].css_first("#run-r-1") is not None
        assert parts["section-in-flight"].css_first("#run-r-1") is None
        assert "All of them are listed above." in text_of(parts["section-in-flight"])
