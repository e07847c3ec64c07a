"""Durations, policies and links."""

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from dashboard.models import Pipeline, Project, Run, Stage, Upstream
from dashboard.models.typical_duration import Usual
from dashboard.runs import concurrency_policy, durations
from dashboard.web.http import links


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (-5, "0 s"), (41, "41 s"), (59.6, "1 min 0 s"), (60, "1 min 0 s"),
        (252, "4 min 12 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min"), (7500, "2 h 5 min"),
        (86_400, "1 d 0 h"), (273_600, "3 d 4 h"),
    ],
)  # fmt: skip
def test_a_duration_is_said_in_two_units(seconds: float, words: str) -> None:
    assert durations.in_words(timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"), (0, "0 s"), (41, "41 s"), (59.9, "59 s"), (60, "1 min"), (119, "1 min"),
        (3599, "59 min"), (3600, "1 h"), (7500, "2 h 5 min"), (86_400, "1 d"), (273_600, "3 d 4 h"),
    ],
)  # fmt: skip
def test_what_goes_on_is_said_without_seconds_once_there_are_minutes(
    seconds: float, words: str
) -> None:
    assert durations.so_far(timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("median", "p95", "words"),
    [
        (120, 240, "usually 2 to 4 min"), (170, 190, "usually about 3 min"),
        (60, 60, "usually about 1 min"), (60, 70, "usually 60 to 70 s"),
        (0.2, 90, "usually 0 to 90 s"),
        (45, 300, "usually 45 s to 5 min"), (58, 58.4, "usually about 58 s"),
        (3600, 4200, "usually 60 to 70 min"), (3590, 7300, "usually 1 h to 2 h 2 min"),
        (6000, 9600, "usually 1 h 40 min to 2 h 40 min"),
        (93_600, 180_000, "usually 1 d 2 h to 2 d 2 h"),
    ],
)  # fmt: skip
def test_what_is_usual_is_said_as_people_say_it(median: float, p95: float, words: str) -> None:
    usual = Usual(timedelta(seconds=median), timedelta(seconds=p95))
    assert durations.usually(usual) == words


@given(st.timedeltas())
def test_any_duration_has_at_most_two_units(span: timedelta) -> None:
    assert len(durations.in_words(span).split()) in {2, 4}


def stage(policy: str = "", *, paused: bool = False) -> Stage:
    pipeline = Pipeline(project=Project(slug="shop"), slug="checkout")
    return Stage(pipeline=pipeline, concurrency_policy=policy, paused=paused)


@pytest.mark.parametrize("policy", ["allow", "queue", "forbid"])
def test_a_documented_policy_is_explained(policy: str) -> None:
    assert policy not in concurrency_policy.facts(stage(policy))[0].split(": ")[-1].rstrip(".")


@pytest.mark.parametrize("policy", ["latest", "replace"])
def test_of_a_policy_that_is_not_documented_it_is_said_what_is_believed(policy: str) -> None:
    for told in (*concurrency_policy.facts(stage(policy)), concurrency_policy.for_others(policy)):
        assert told.startswith(f"Concurrency policy: {policy}. As far as known: ")
        assert told.endswith("; Northflank does not document it.")


def test_a_policy_nobody_knows_is_named_only() -> None:
    assert concurrency_policy.facts(stage("something-new")) == [
        "Concurrency policy: something-new."
    ]


@pytest.mark.parametrize(
    ("policy", "count", "in_flight", "words"),
    [
        ("forbid", 0, True, ""),
        ("forbid", 1, True, "1 run has been skipped since it was created."),
        ("forbid", 2, True, "2 runs have been skipped since it was created."),
        ("forbid", 1, False, "1 run was skipped while it was in flight."),
        ("forbid", 2, False, "2 runs were skipped while it was in flight."),
        (
            "latest", 1, True,
            "1 run seems to have been dropped for a newer one since it was created.",
        ),
        (
            "replace", 2, False,
            "2 runs seem to have been dropped for a newer one while it was in flight.",
        ),
    ],
)  # fmt: skip
def test_what_was_dropped_is_counted(policy: str, count: int, in_flight: bool, words: str) -> None:
    assert concurrency_policy.swallowed(policy, count, at_least=False, in_flight=in_flight) == words


def test_a_paused_flow_says_so() -> None:
    assert "paused" in concurrency_policy.facts(stage(paused=True))[0]


def test_a_flow_of_which_nothing_is_known_says_nothing() -> None:
    assert concurrency_policy.facts(stage()) == []


def run(**ids: Any) -> Run:
    project = Project(slug=ids.get("project", "shop"))
    pipeline = Pipeline(project=project, slug=ids.get("pipeline", "checkout"))
    of = Stage(pipeline=pipeline, name="Production", path=ids.get("path", "production"))
    return Run(stage=of, run_id=ids.get("run", "r1"))


def test_the_sandbox_has_no_pages_to_link_to(db: None, settings: Settings) -> None:
    settings.SANDBOX = True
    assert links.northflank_url(run()) == ""


def test_the_sandbox_may_have_a_template(db: None, settings: Settings) -> None:
    settings.SANDBOX = True
    settings.NORTHFLANK_RUN_URL_TEMPLATE = "http://x/{run}"
    assert links.northflank_url(run()) == "http://x/r1"


def test_without_a_team_there_is_no_link(db: None, settings: Settings) -> None:
    settings.SANDBOX = False
    assert links.northflank_url(run()) == ""


def test_the_team_of_the_setting_is_linked_to(db: None, settings: Settings) -> None:
    settings.SANDBOX, settings.NORTHFLANK_TEAM_ID = False, "acme"
    assert links.northflank_url(run()) == "https://app.northflank.com/t/acme/project/shop"


def test_the_team_that_the_token_belongs_to_is_linked_to(db: None, settings: Settings) -> None:
    settings.SANDBOX = False
    Upstream.objects.create(identity="x", team="learned")
    assert "/t/learned/" in links.northflank_url(run())


def test_the_setting_wins_over_what_the_token_says(db: None, settings: Settings) -> None:
    settings.SANDBOX, settings.NORTHFLANK_TEAM_ID = False, "acme"
    Upstream.objects.create(identity="x", team="learned")
    assert "/t/acme/" in links.northflank_url(run())


def test_a_template_may_use_every_part(db: None, settings: Settings) -> None:
    settings.NORTHFLANK_TEAM_ID = "acme"
    settings.NORTHFLANK_RUN_URL_TEMPLATE = "http://x/{team}/{project}/{pipeline}/{stage}/{run}"
    assert links.northflank_url(run()) == "http://x/acme/shop/checkout/production/r1"


def test_a_stage_whose_spelling_is_unknown_is_written_small(db: None, settings: Settings) -> None:
    settings.NORTHFLANK_RUN_URL_TEMPLATE = "http://x/{stage}"
    assert links.northflank_url(run(path="")) == "http://x/production"


HOSTILE = 'a/../b?c=d#e f"<é{run}%2f'


def test_hostile_ids_stay_one_part_of_the_address(db: None, settings: Settings) -> None:
    settings.NORTHFLANK_RUN_URL_TEMPLATE = "http://x/{project}/{run}"
    found = urlsplit(links.northflank_url(run(project=HOSTILE, run=HOSTILE)))
    assert (found.path.count("/"), found.query, found.fragment) == (2, "", "")


def test_hostile_ids_need_no_escaping_in_a_page(db: None, settings: Settings) -> None:
    settings.NORTHFLANK_RUN_URL_TEMPLATE = "http://x/{run}"
    assert not set("\"'<> {}") & set(links.northflank_url(run(run=HOSTILE)))
