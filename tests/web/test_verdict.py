"""What a run's page and its row say of how it stands, what is around it, and what to hand over."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.db import connection
from django.db.models import Q
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from dashboard.models import Grant, Run, Stage, StageTiming
from dashboard.models.grants import Right
from dashboard.runs import concurrency
from tests.support import factories
from tests.support.html import HTMX, See, one, parsed, words

NOW = timezone.now


@pytest.fixture
def retrying(stage: Stage) -> Run:
    """A run at its second attempt to migrate, in a stage where that usually takes 2 to 4 min."""
    StageTiming.objects.create(
        stage=stage, run_median=480, run_p95=600, steps={"migrate": [120, 240]}
    )
    began = NOW() - timedelta(minutes=18, seconds=20)
    step = factories.node(
        "JobRun", label="migrate", ref="migrate", status="retrying", started_at=began,
        attempts=2, max_attempts=3, next_attempt_at=NOW() + timedelta(minutes=5, seconds=30),
    )  # fmt: skip
    return factories.run(
        stage,
        "r-1",
        status="retrying",
        name="Nightly",
        started_at=began,
        created_at=began,
        step="migrate, attempt 2 of 3",
        step_key="migrate",
        step_since=began,
        steps=msgspec.to_builtins(factories.node("Workflow", steps=(step,))),
        detail_seen_at=NOW(),
    )


def waiting(stage: Stage, name: str, **fields: Any) -> Run:
    usual = {"status": "queued", "started_at": None, "created_at": NOW()}
    return factories.run(stage, name=name, **usual | fields)


# --- the verdict -------------------------------------------------------------------------------


def test_a_runs_page_says_in_a_sentence_how_it_stands(see: See, retrying: Run) -> None:
    waiting(retrying.stage, "Hotfix")
    assert words(one(see(factories.address(retrying)), "[data-verdict]")) == (
        "Checkout / Production: step “migrate” for 18 min (usually 2 to 4 min). "
        "Attempt 2 of 3, next in 5 min. 1 run waits behind it."
    )


def test_its_times_can_go_on_without_the_server(see: See, retrying: Run) -> None:
    verdict = one(see(factories.address(retrying)), "[data-verdict]")
    since = one(verdict, "time[data-since][data-words]")
    assert retrying.step_since is not None
    assert since.attributes["datetime"] == retrying.step_since.isoformat()
    assert one(verdict, "time[data-until]").attributes["datetime"]


def test_others_names_are_kept_apart_in_it(see: See, retrying: Run) -> None:
    verdict = one(see(factories.address(retrying)), "[data-verdict]")
    assert [words(name) for name in verdict.css("bdi")] == ["Checkout", "migrate"]


def test_a_row_says_it_in_short(see: See, retrying: Run) -> None:
    cell = one(see(factories.address(retrying.stage)), "[data-run] p.step")
    began = timezone.localtime(retrying.step_since)
    assert words(cell) == (
        f"migrate, attempt 2 of 3, since {began.day} {began:%b %H:%M:%S} (usually 2 to 4 min)"
    )
    assert one(cell, "time[data-since][data-words]").attributes["datetime"] == began.isoformat()
    assert cell.attributes["title"] == "migrate, attempt 2 of 3"


def test_the_row_of_a_run_that_has_ended_has_no_step(see: See, stage: Stage) -> None:
    factories.run(stage, status="failure", step="migrate", step_since=NOW())
    assert see(factories.address(stage)).css("[data-run] .step") == []


def test_what_is_usual_costs_rows_no_query_each(at_desk: Client, stage: Stage) -> None:
    def queries() -> int:
        cache.clear()
        with CaptureQueriesContext(connection) as seen:
            assert at_desk.get(factories.address(stage)).status_code == 200
        return len(seen)

    StageTiming.objects.create(stage=stage, steps={"migrate": [120, 240]})
    factories.run(stage, step="migrate", step_key="migrate", step_since=NOW())
    at_desk.get(factories.address(stage))  # notes the interest, which it does once a while
    few = queries()
    for _ in range(40):
        factories.run(stage, step="migrate", step_key="migrate", step_since=NOW())
    assert queries() == few


# --- around it ---------------------------------------------------------------------------------


def test_it_names_who_waits_behind(see: See, retrying: Run) -> None:
    first, second = waiting(retrying.stage, "Hotfix"), waiting(retrying.stage, "Fix of it")
    behind = one(see(factories.address(retrying)), "[data-around] [data-behind]")
    assert words(one(behind, "p")) == "2 runs wait behind it:"
    assert [link.attributes["href"] for link in behind.css("a")] == [
        factories.address(first),
        factories.address(second),
    ]


def test_of_many_it_names_some_and_counts_the_rest(see: See, retrying: Run) -> None:
    for number in range(8):
        waiting(retrying.stage, f"Fix {number}")
    behind = one(see(factories.address(retrying)), "[data-around] [data-behind]")
    assert len(behind.css("a")) == 5
    assert words(behind).startswith("8 runs wait behind it:")
    assert words(behind).endswith("and 3 more")


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("queue", "Runs of this stage wait for each other. No run waits behind it."),
        ("allow", "Nothing has to wait for it: runs of this stage may go on side by side."),
        ("forbid", "Requests for another run are ignored while this one is under way."),
        (
            "replace",
            (
                "Concurrency policy: replace. As far as known: a newer run takes the place of this "
                "one, which is then aborted; Northflank does not document it. "
                "No run waits behind it."
            ),
        ),
        ("something-new", "Concurrency policy: something-new. No run waits behind it."),
        ("", "No run waits behind it."),
    ],
)
def test_it_says_what_the_policy_means(policy: str, said: str, see: See, run: Run) -> None:
    Stage.objects.update(concurrency_policy=policy)
    panel = one(see(factories.address(run)), "[data-around]")
    told = panel.css("[data-policy], [data-behind]")
    assert " ".join(words(part) for part in told) == said


def test_who_waits_says_for_which_runs(see: See, run: Run) -> None:
    later = waiting(run.stage, "Hotfix")
    before = one(see(factories.address(later)), "[data-around] [data-before]")
    assert words(one(before, "p")) == "It waits for 1 run:"
    assert one(before, "a").attributes["href"] == factories.address(run)


def test_it_names_what_else_goes_on_in_the_pipeline(see: See, run: Run) -> None:
    other = factories.run(factories.stage("Staging", of=run.stage.pipeline))
    factories.run(factories.stage(of=factories.pipeline("elsewhere")))
    beside = one(see(factories.address(run)), "[data-around] [data-beside]")
    assert [link.attributes["href"] for link in beside.css("a")] == [factories.address(other)]
    assert words(one(beside, "li")).endswith("Staging")


def test_what_a_person_may_not_see_is_not_named(client: Client, run: Run, viewer: User) -> None:
    Grant.objects.all().delete()
    group = Group.objects.create(name="Watchers")
    group.user_set.add(viewer)
    Grant.objects.create(group=group, right=Right.SEE, stage="Production")
    factories.run(factories.stage("Staging", of=run.stage.pipeline), name="Secret")
    client.force_login(viewer)
    page = parsed(client.get(factories.address(run)))
    assert "Secret" not in words(page)
    assert words(one(page, "[data-beside]")) == "You see nothing else of this pipeline in flight."


def test_it_links_the_last_good_run(see: See, run: Run) -> None:
    good = factories.run(run.stage, status="success", name="Good")
    StageTiming.objects.create(stage=run.stage, last_good=good)
    line = one(see(factories.address(run)), "[data-last-good]")
    assert words(line).startswith("Last good here: Good ")
    assert one(line, "a").attributes["href"] == factories.address(good)


def test_the_last_good_run_says_that_it_is(see: See, stage: Stage) -> None:
    good = factories.run(stage, status="success")
    StageTiming.objects.create(stage=stage, last_good=good)
    line = one(see(factories.address(good)), "[data-last-good]")
    assert words(line) == "It is the last good run of its stage."


def test_without_a_good_run_it_says_so(see: See, run: Run) -> None:
    line = one(see(factories.address(run)), "[data-last-good]")
    assert words(line) == "No good run of this stage is known."


def test_the_question_before_an_abort_says_how_many_wait(see: See, run: Run) -> None:
    for name in ("Hotfix", "Fix of it"):
        waiting(run.stage, name)
    facts = see(factories.address(run, "abort"), **HTMX).css(".facts dd")
    assert "2 runs wait" in [words(fact) for fact in facts]


@pytest.mark.parametrize("policy", ["queue", "forbid", "latest", "replace"])
@pytest.mark.parametrize("name", ["run", "abort"])
def test_what_is_around_costs_no_more_queries_for_more_runs(
    policy: str, name: str, at_desk: Client, run: Run
) -> None:
    def queries() -> int:
        cache.clear()
        with CaptureQueriesContext(connection) as seen:
            assert at_desk.get(factories.address(run, name)).status_code == 200
        return len(seen)

    def more(count: int) -> None:
        for number in range(count):
            skipped(run.stage, f"Dropped {number}")
            factories.run(run.stage, status="aborted")
            waiting(run.stage, f"Fix {number}")
            factories.run(factories.stage("Staging", of=run.stage.pipeline))

    more(1)
    Stage.objects.update(concurrency_policy=policy)
    at_desk.get(factories.address(run, name))  # notes the interest, which it does once a while
    few = queries()
    more(30)
    assert queries() == few


# --- what was dropped ---------------------------------------------------------------------------


def skipped(stage: Stage, name: str, **fields: Any) -> Run:
    """A run that was created now and skipped at once."""
    usual = {"started_at": None, "created_at": NOW(), "concluded_at": NOW()}
    return factories.run(stage, name=name, status="skipped", **usual | fields)


@pytest.fixture
def forbidding(run: Run) -> Run:
    """A run in flight in a stage that has no other run beside it."""
    Stage.objects.update(concurrency_policy="forbid")
    return Run.objects.with_place().get(pk=run.pk)


def test_all_that_tells_of_what_was_skipped_tells_the_same_number(
    see: See, forbidding: Run, manager: User
) -> None:
    for number in range(7):
        skipped(forbidding.stage, f"Fix {number}")
    said = "7 runs have been skipped since it was created."
    page = see(factories.address(forbidding))
    panel = one(page, "[data-around] [data-swallowed]")
    assert words(one(panel, "p:first-child")) == said
    assert [words(link) for link in panel.css("a")] == [f"Fix {n}" for n in (6, 5, 4, 3, 2)]
    assert "and 2 more" in words(panel)
    assert words(one(page, "[data-verdict]")).endswith(said)
    assert f"{said[:-1]}: Fix 6 (" in one(page, "#hand-over-text").text()
    question = see(factories.address(forbidding, "abort"), **HTMX)
    assert said in [words(fact) for fact in question.css(".facts dd")]
    began = NOW() - timedelta(minutes=20)
    factories.abort(forbidding, manager, requested_at=began, sent_at=began, answered_at=began)
    factories.change(forbidding, status="aborting", aborting_level=2, status_since=began)
    steps = words(one(see(factories.address(forbidding)), ".next-steps"))
    assert f"No run waits behind it. {said}" in steps


def test_where_none_was_skipped_it_says_that_none_is_known(see: See, forbidding: Run) -> None:
    page = see(factories.address(forbidding))
    assert words(one(page, "[data-around] [data-swallowed]")) == (
        "Northflank tells of none that was skipped; one that it ignores may leave no run."
    )
    assert "skipped" not in words(one(page, "[data-verdict]"))
    assert "skipped" not in one(page, "#hand-over-text").text()
    question = see(factories.address(forbidding, "abort"), **HTMX)
    assert "Meanwhile" not in words(question)


def test_a_run_that_has_ended_tells_what_was_skipped_in_its_time(see: See, stage: Stage) -> None:
    Stage.objects.update(concurrency_policy="forbid")
    began, done = NOW() - timedelta(hours=3), NOW() - timedelta(hours=2)
    run = factories.run(stage, status="failure", created_at=began, concluded_at=done)
    during = skipped(stage, "Hotfix", created_at=began + timedelta(minutes=5))
    skipped(stage, "Later", created_at=done + timedelta(minutes=5))
    page = see(factories.address(run))
    panel = one(page, "[data-around] [data-swallowed]")
    assert words(one(panel, "p:first-child")) == "1 run was skipped while it was in flight."
    assert [link.attributes["href"] for link in panel.css("a")] == [factories.address(during)]
    assert words(one(page, "[data-verdict]")).endswith("1 run was skipped while it was in flight.")


def test_a_skipped_run_leads_to_the_one_that_kept_it_out(see: See, forbidding: Run) -> None:
    page = see(factories.address(skipped(forbidding.stage, "Hotfix")))
    line = one(page, "[data-around] [data-dropped-for]")
    assert words(line) == "Another was in flight when it came: Nightly"
    assert one(line, "a").attributes["href"] == factories.address(forbidding)
    assert page.css("[data-swallowed]") == []
    assert words(one(page, "[data-verdict]")).endswith(
        "was skipped: Northflank did not carry it out. Another was in flight when it came."
    )


def test_what_was_aborted_from_here_was_not_dropped_for_a_newer_one(
    see: See, run: Run, manager: User
) -> None:
    Stage.objects.update(concurrency_policy="replace")
    began = run.created_at - timedelta(minutes=9)
    ends = {"status": "aborted", "created_at": began, "concluded_at": run.created_at}
    replaced = factories.run(run.stage, name="Replaced", **ends)
    aborted = factories.run(run.stage, name="Aborted", **ends)
    factories.abort(aborted, manager, "concluded", settled_at=NOW())
    panel = one(see(factories.address(run)), "[data-around] [data-swallowed]")
    assert [link.attributes["href"] for link in panel.css("a")] == [factories.address(replaced)]
    assert see(factories.address(aborted)).css("[data-dropped-for]") == []
    line = one(see(factories.address(replaced)), "[data-dropped-for]")
    assert words(line) == "It seems to have been dropped for a newer one: Nightly"


def test_only_so_many_are_looked_at_and_then_it_says_so(see: See, forbidding: Run) -> None:
    for number in range(concurrency.LOOKED_AT + 1):
        skipped(forbidding.stage, f"Fix {number}")
    panel = one(see(factories.address(forbidding)), "[data-around] [data-swallowed]")
    said = f"At least {concurrency.LOOKED_AT} runs have been skipped since it was created."
    assert words(one(panel, "p:first-child")) == said
    assert words(panel.css("a")[0]) == f"Fix {concurrency.LOOKED_AT}"
    assert f"and {concurrency.LOOKED_AT - len(panel.css('a'))} more" in words(panel)


def test_one_more_than_was_skipped_is_looked_at_to_know_that_it_is_all(
    see: See, forbidding: Run
) -> None:
    factories.run(forbidding.stage, status="success", created_at=NOW() - timedelta(hours=1))
    for number in range(concurrency.LOOKED_AT - 1):
        skipped(forbidding.stage, f"Fix {number}")
    panel = one(see(factories.address(forbidding)), "[data-around] [data-swallowed]")
    said = f"{concurrency.LOOKED_AT - 1} runs have been skipped since it was created."
    assert words(one(panel, "p:first-child")) == said


def test_other_stages_drop_nothing_for_it(see: See, forbidding: Run) -> None:
    skipped(factories.stage("Staging", of=forbidding.stage.pipeline), "Elsewhere")
    assert "Elsewhere" not in words(see(factories.address(forbidding)))


def test_what_may_not_be_seen_is_not_read(forbidding: Run) -> None:
    skipped(forbidding.stage, "Hotfix")
    assert concurrency.past(forbidding, Q(pk__in=[])).runs == []


# --- handing over ------------------------------------------------------------------------------


def test_a_run_can_be_handed_over(see: See, retrying: Run, settings: Settings) -> None:
    settings.BASE_URL = "https://flows.example"
    box = one(see(factories.address(retrying)), ".hand-over")
    text = one(box, "pre")
    assert one(box, "[data-copy]").attributes["data-copy"] == text.attributes["id"]
    told = text.text().splitlines()
    assert told[0].startswith("Checkout / Production: step “migrate” for 18 min")
    assert "Where: Shop / Checkout / Production" in told
    assert told[-1] == f"https://flows.example{factories.address(retrying)}"


def test_a_run_that_has_ended_can_be_handed_over(see: See, stage: Stage) -> None:
    run = factories.run(stage, status="failure", name="Nightly")
    text = one(see(factories.address(run)), "#hand-over-text").text()
    assert "Status: Failed, concluded" in text


def test_who_aborted_it_and_why_is_handed_over(see: See, run: Run, manager: User) -> None:
    factories.abort(run, manager, reason="Stuck")
    text = one(see(factories.address(run)), "#hand-over-text").text()
    assert "Asked by manager" in text
    assert "“Stuck”" in text
