"""Tab title and icon: the worst state on the page."""

import pytest
from django.contrib.auth.models import User

from dashboard.models import Run
from tests.support import factories
from tests.support.html import GetPage, select_one

IN_FLIGHT = {"status": "running"}
OVERDUE = {"status": "running", "overdue_severity": 1}
ABORT_OVERDUE = {"status": "aborting", "abort_severity": 2}
FAILED = {"status": "failure"}
NEEDS_ATTENTION = {"overdue_severity", "abort_severity"}
# Northflank has reported the status, but not the end.
NOT_CONCLUDED = {**FAILED, "concluded": False, "in_flight": True}


def title_and_icon(get_page: GetPage, address: str) -> tuple[str, str]:
    """Return the tab's title and icon, which are the same with and without JavaScript."""
    html = get_page(address)
    mark = select_one(html, "#tab-title").attributes
    assert select_one(html, "head > title").text() == mark["data-title"]
    icon = select_one(html, "link[rel=icon]").attributes["href"]
    assert icon == mark["data-icon"]
    name = (mark["data-title"] or "").removesuffix(" · Release flows")
    return name, (icon or "").removeprefix("/static/icons/").partition(".svg?v=")[0]


@pytest.mark.parametrize(
    ("runs", "lead", "icon"),
    [
        ([], "", "ok"),
        ([IN_FLIGHT], "", "in-flight"),
        ([{"status": "approval_wait"}], "Needs approval · ", "in-flight"),
        ([IN_FLIGHT, OVERDUE], "Overdue · ", "overdue"),
        ([IN_FLIGHT, {**OVERDUE, "overdue_severity": 2}], "Overdue 3× · ", "overdue"),
        ([OVERDUE, FAILED], "Failed · ", "bad"),
        ([NOT_CONCLUDED], "", "in-flight"),
        ([NOT_CONCLUDED, {"status": "approval_wait"}], "Needs approval · ", "in-flight"),
        ([NOT_CONCLUDED, FAILED], "Failed · ", "bad"),
        ([{**NOT_CONCLUDED, "overdue_severity": 1}], "Overdue · ", "overdue"),
        ([IN_FLIGHT, OVERDUE, FAILED, ABORT_OVERDUE], "Abort overdue · ", "bad"),
        ([{**ABORT_OVERDUE, "abort_severity": 1}], "Aborting · ", "overdue"),
    ],
)
def test_tab_of_now_and_board_shows_worst_state(
    runs: list[dict[str, object]], lead: str, icon: str, get_page: GetPage
) -> None:
    stage = factories.stage()
    for fields in runs:
        factories.run(stage, **fields)  # type: ignore[arg-type]
    needing = [fields for fields in runs if NEEDS_ATTENTION & fields.keys() or fields == FAILED]
    now = f"Now ({len(needing)})" if needing else "Now"
    assert title_and_icon(get_page, "/") == (f"{lead}{now}", icon)
    assert title_and_icon(get_page, "/board/") == (f"{lead}Board", icon)
    factories.upstream_error("It fell over.")
    assert title_and_icon(get_page, "/") == (f"Not updating · {now}", "upstream-down")
    assert title_and_icon(get_page, "/health/") == ("Not updating · Health", "upstream-down")


@pytest.mark.parametrize(
    ("runs", "lead", "icon"),
    [
        ([], "Incomplete · ", "incomplete"),
        ([IN_FLIGHT], "Incomplete · ", "incomplete"),
        ([OVERDUE], "Overdue · Incomplete · ", "overdue"),
        ([FAILED], "Failed · Incomplete · ", "bad"),
    ],
)
def test_tab_with_unread_stage_shows_incomplete(
    runs: list[dict[str, object]], lead: str, icon: str, get_page: GetPage
) -> None:
    stage = factories.stage()
    factories.stage("Staging", synced_at=None, fresh_until=None)
    for fields in runs:
        factories.run(stage, **fields)  # type: ignore[arg-type]
    needing = [fields for fields in runs if NEEDS_ATTENTION & fields.keys() or fields == FAILED]
    now = f"Now ({len(needing)})" if needing else "Now"
    assert title_and_icon(get_page, "/") == (f"{lead}{now}", icon)
    assert title_and_icon(get_page, "/board/") == (f"{lead}Board", icon)
    factories.upstream_error("It fell over.")
    assert title_and_icon(get_page, "/") == (f"Not updating · {now}", "upstream-down")


@pytest.mark.parametrize(
    ("fields", "title", "icon"),
    [
        (IN_FLIGHT, "Running: {run}", "in-flight"),
        (OVERDUE, "Overdue · Running: {run}", "overdue"),
        (ABORT_OVERDUE, "Abort overdue · Aborting: {run}", "bad"),
        (FAILED, "Failed: {run}", "bad"),
        ({"status": "success"}, "Succeeded: {run}", "ok"),
    ],
)
def test_tab_of_run_shows_its_status(
    fields: dict[str, object], title: str, icon: str, get_page: GetPage
) -> None:
    run = factories.run(factories.stage(), **fields)  # type: ignore[arg-type]
    assert title_and_icon(get_page, factories.address(run)) == (title.format(run=run.title), icon)


def test_tab_of_stage_and_pipeline_shows_worst_run(get_page: GetPage) -> None:
    run = factories.run(factories.stage(), **ABORT_OVERDUE)  # type: ignore[arg-type]
    for target in (run.stage, run.stage.pipeline):
        title, icon = title_and_icon(get_page, factories.address(target))
        assert title.startswith("Abort overdue · ")
        assert icon == "bad"


@pytest.mark.parametrize(
    ("level", "lead", "icon"), [(0, "", "in-flight"), (2, "Abort overdue · ", "bad")]
)
def test_tab_of_aborts_page_shows_overdue_abort(
    level: int, lead: str, icon: str, get_page: GetPage, manager: User, run: Run
) -> None:
    assert title_and_icon(get_page, "/aborts/") == ("Aborts", "ok")
    factories.change(run, status="aborting", abort_severity=level)
    factories.abort(run, manager)
    assert title_and_icon(get_page, "/aborts/") == (f"{lead}Aborts (1 under way)", icon)


@pytest.mark.parametrize("address", ["/nothing/here/", "/accounts/login/"])
def test_tab_of_stateless_page_has_neutral_icon(address: str, client: object, db: None) -> None:
    answer = client.get(address, follow=True)  # type: ignore[attr-defined]
    assert 'href="/static/icons/ok.svg?' in answer.content.decode()


def test_long_names_are_cut_in_tab_titles(get_page: GetPage) -> None:
    pipeline = factories.pipeline(name="P" * 5000)
    run = factories.run(factories.stage(parent=pipeline), name="T" * 5000, status="S" * 5000)
    cut = {letter: letter * 119 + "…" for letter in "PST"}
    assert title_and_icon(get_page, factories.address(run))[0] == f"{cut['S']}: {cut['T']}"
    stage_address = factories.address(run.stage)
    assert title_and_icon(get_page, stage_address)[0].endswith(f"{cut['P']} / Production")
