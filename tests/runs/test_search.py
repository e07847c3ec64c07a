"""Which runs, pipelines and projects a text finds, for whom, and in what order."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.accounts import permissions
from dashboard.accounts.permissions import Permissions
from dashboard.models import Grant, Run, Stage
from dashboard.runs import search
from dashboard.runs.search import Search
from tests.support import factories

RUN_ID = "9718c451-ec9e-566e-9d0b-533cd77d4c6a"
HOSTILE_TEXTS = [
    "%", "_", "%%%", "___", "'", '"', "\\", "a\\", "' OR 1=1 --", '"a" OR b', "a* NEAR(b)", "[a-z]",
    "-", "^", "👩‍🚀👩‍🚀👩‍🚀", "\u0301", "\u202e", "x" * 400, "{}", "{{ x }}",
]  # fmt: skip


@pytest.fixture
def stage(db: None) -> Stage:
    project = factories.project("shop", name="Grand Bazaar")
    return factories.stage(parent=factories.pipeline("checkout", project, name="Pay & Go"))


@pytest.fixture
def run(stage: Stage, manager: User) -> Run:
    """A run with all that a run can be found by."""
    fields = {"name": "Größe 4719", "description": "For Zoë", "step": "Migrate 50%_done"}
    run = factories.run(stage, RUN_ID, **fields)
    factories.abort(run, manager)
    factories.run(factories.stage(parent=factories.pipeline("other", factories.project("else"))))
    return run


def found(text: str, user_permissions: Permissions = permissions.ALL) -> list[str]:
    """Return the ids of the runs that a text finds."""
    factories.search_texts()
    ids = dict(Run.objects.values_list("pk", "run_id"))
    return [ids[pk] for pk in Search(text).runs(user_permissions)]


@pytest.mark.parametrize(
    "text",
    [
        "öße", "GRÖSSE", "grosse", "4719", "for zoe", "Migrate", "533cd77d", RUN_ID.upper(),
        "bazaar", "shop", "check", "y & g", "anag", "grosse 4719", "4719 checkout zoe manager",
        "50%_d", "Gr", "sh", "ＧＲＯＳＳＥ",
    ],
)  # fmt: skip
def test_run_is_found_by_any_part_of_its_texts(run: Run, text: str) -> None:
    assert found(text) == [RUN_ID]


@pytest.mark.parametrize(
    "text", ["nothing", "4719 nothing", "grosse4719", "19", "aa", "nager zzz", "50%d", "", " "]
)
def test_run_is_not_found_by_other_texts(run: Run, text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_any_text_is_searched_literally(run: Run, text: str) -> None:
    named = factories.run(run.stage, "named", name=f"a{text}b")
    assert set(found(text)) <= {"named", RUN_ID}
    if len(text) >= search.MIN_LETTERS and Search(text):
        assert found(text) == ["named"]
    assert found(f"a{text}b") == [named.run_id]


def test_of_many_words_the_longest_are_searched(run: Run) -> None:
    assert found("4719 grosse migrate checkout manager bazaar shop 533cd77d zoe x y z") == [RUN_ID]


def test_runs_in_flight_come_first_then_the_newest(stage: Stage) -> None:
    now = timezone.now()
    for run_id, status, minutes in [
        ("old", "success", 50), ("running-old", "running", 40), ("new", "failure", 1),
        ("running-new", "running", 30), ("middle", "success", 10),
    ]:  # fmt: skip
        factories.run(stage, run_id, status=status, created_at=now - timedelta(minutes=minutes))
    assert found("release") == ["running-new", "running-old", "new", "middle", "old"]


def test_at_most_one_run_more_than_the_limit_is_found(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MAX_RUNS", 2)
    for _ in range(5):
        factories.run(stage, status="success")
        factories.run(stage)
    runs = found("release")
    assert len(runs) == 3
    assert Run.objects.in_flight().filter(run_id__in=runs).count() == 3


def test_only_what_may_be_viewed_is_found(run: Run, viewer: User) -> None:
    Grant.objects.all().delete()
    factories.run(factories.stage("Staging", run.stage.pipeline), "staging", status="success")
    factories.grant("view", "some", viewer, stage="Staging")
    viewers = permissions.for_user(viewer)
    assert found("checkout", viewers) == ["staging"]
    factories.grant("view", "some", viewer, project=factories.project("else"))
    assert Search("pay").pipelines(viewers)  # it has a stage in every project
    Grant.objects.filter(stage="Staging").delete()
    viewers = permissions.for_user(viewer)
    assert found("checkout", viewers) == []
    assert found("4719", viewers) == []
    assert Search("pay").pipelines(viewers) == []
    assert Search("bazaar").projects(viewers) == []


def names(text: str) -> tuple[list[str], list[str]]:
    finder = Search(text)
    return (
        [str(pipeline) for pipeline in finder.pipelines(permissions.ALL)],
        [str(project) for project in finder.projects(permissions.ALL)],
    )


@pytest.mark.parametrize(
    ("text", "pipelines", "projects"),
    [
        ("ZAA", ["Pay & Go"], ["Grand Bazaar"]),
        ("checkout", ["Pay & Go"], []),
        ("go grand", ["Pay & Go"], []),
        ("gr", ["Pay & Go"], ["Grand Bazaar"]),
        ("go", [], []),
        ("nothing", [], []),
    ],
)
def test_pipelines_and_projects_are_found_by_names_and_ids(
    run: Run, text: str, pipelines: Any, projects: Any
) -> None:
    assert names(text) == (pipelines, projects)


def test_removed_pipelines_are_not_listed_but_their_runs_are(run: Run) -> None:
    run.stage.pipeline.removed_at = timezone.now()
    run.stage.pipeline.save()
    assert names("checkout") == ([], [])
    assert found("checkout") == [RUN_ID]
