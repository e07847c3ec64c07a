"""A tab's name and icon: the worst of what its page shows."""

import pytest
from django.contrib.auth.models import User

from dashboard.models import Run
from tests.support import factories
from tests.support.html import See, one

FLYING = {"status": "running"}
SLOW = {"status": "running", "overdue": 1}
HANGS = {"status": "aborting", "aborting_level": 2}
FAILED = {"status": "failure"}


def tab(see: See, address: str) -> tuple[str, str]:
    """Its name before and after JavaScript has had a hand in it is the same, and so its icon."""
    html = see(address)
    mark = one(html, "#title").attributes
    assert one(html, "head > title").text() == mark["data-title"]
    icon = one(html, "link[rel=icon]").attributes["href"]
    assert icon == mark["data-icon"]
    named = (mark["data-title"] or "").removesuffix(" · Release flows")
    return named, (icon or "").removeprefix("/static/icons/").partition(".svg?v=")[0]


@pytest.mark.parametrize(
    ("runs", "lead", "icon"),
    [
        ([], "", "calm"),
        ([FLYING], "", "in-flight"),
        ([{"status": "approval_wait"}], "Needs approval · ", "in-flight"),
        ([FLYING, SLOW], "Overdue · ", "overdue"),
        ([SLOW, FAILED], "Overdue · ", "overdue"),
        ([FLYING, SLOW, FAILED, HANGS], "Abort overdue · ", "bad"),
        ([{**HANGS, "aborting_level": 1}], "Aborting · ", "overdue"),
    ],
)
def test_now_and_the_board_tell_the_worst(
    runs: list[dict[str, object]], lead: str, icon: str, see: See
) -> None:
    stage = factories.stage()
    for fields in runs:
        factories.run(stage, **fields)  # type: ignore[arg-type]
    flying = sum(fields != FAILED for fields in runs)
    assert tab(see, "/") == (f"{lead}Now ({flying})", icon)
    assert tab(see, "/board/") == (f"{lead}Board", icon)
    factories.trouble("It fell over.")
    assert tab(see, "/") == (f"Can’t see · Now ({flying})", "blind")
    assert tab(see, "/status/") == ("Can’t see · Status", "blind")


@pytest.mark.parametrize(
    ("runs", "lead", "icon"),
    [
        ([], "Incomplete · ", "incomplete"),
        ([FLYING], "Incomplete · ", "incomplete"),
        ([SLOW], "Overdue · Incomplete · ", "overdue"),
        ([FAILED], "Failed · Incomplete · ", "bad"),
    ],
)
def test_while_something_was_not_looked_at_no_tab_is_calm(
    runs: list[dict[str, object]], lead: str, icon: str, see: See
) -> None:
    stage = factories.stage()
    factories.stage("Staging", synced_at=None, promised_at=None)
    for fields in runs:
        factories.run(stage, **fields)  # type: ignore[arg-type]
    flying = sum(fields != FAILED for fields in runs)
    assert tab(see, "/") == (f"{lead}Now ({flying})", icon)
    assert tab(see, "/board/") == (f"{lead}Board", icon)
    factories.trouble("It fell over.")
    assert tab(see, "/") == (f"Can’t see · Now ({flying})", "blind")


@pytest.mark.parametrize(
    ("fields", "named", "icon"),
    [
        (FLYING, "Running: {run}", "in-flight"),
        (SLOW, "Overdue · Running: {run}", "overdue"),
        (HANGS, "Abort overdue · Aborting: {run}", "bad"),
        (FAILED, "Failed: {run}", "bad"),
        ({"status": "success"}, "Success: {run}", "calm"),
    ],
)
def test_a_runs_page_tells_of_it(
    fields: dict[str, object], named: str, icon: str, see: See
) -> None:
    run = factories.run(factories.stage(), **fields)  # type: ignore[arg-type]
    assert tab(see, factories.address(run)) == (named.format(run=run.title), icon)


def test_a_stage_and_its_pipeline_tell_of_their_runs(see: See) -> None:
    run = factories.run(factories.stage(), **HANGS)  # type: ignore[arg-type]
    for of in (run.stage, run.stage.pipeline):
        named, icon = tab(see, factories.address(of))
        assert named.startswith("Abort overdue · ")
        assert icon == "bad"


@pytest.mark.parametrize(
    ("level", "lead", "icon"), [(0, "", "in-flight"), (2, "Abort overdue · ", "bad")]
)
def test_the_aborts_tell_of_one_that_does_not_end(
    level: int, lead: str, icon: str, see: See, manager: User, run: Run
) -> None:
    assert tab(see, "/aborts/") == ("Aborts", "calm")
    factories.change(run, status="aborting", aborting_level=level)
    factories.abort(run, manager)
    assert tab(see, "/aborts/") == (f"{lead}Aborts (1 under way)", icon)


@pytest.mark.parametrize("address", ["/nothing/here/", "/accounts/login/"])
def test_pages_without_a_state_are_calm(address: str, client: object, db: None) -> None:
    answer = client.get(address, follow=True)  # type: ignore[attr-defined]
    assert 'href="/static/icons/calm.svg?' in answer.content.decode()
