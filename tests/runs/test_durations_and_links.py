"""Durations, policies and links."""

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from dashboard.models import Pipeline, Project, Run, Stage, Upstream
from dashboard.models.typical_duration import TypicalDuration
from dashboard.runs import concurrency_policy
from dashboard.texts import durations
from dashboard.web.http import links
from tests.support.durations import DURATIONS
from tests.support.messages import keys, keys_and_params


@pytest.mark.parametrize(("seconds", "text", "sentence"), DURATIONS)
def test_duration_is_formatted_in_at_most_two_units(seconds: int, text: str, sentence: str) -> None:
    span = timedelta(seconds=seconds)
    assert durations.format_duration(span) == text
    assert f"for {durations.format_elapsed(span)}" == sentence


@pytest.mark.parametrize(
    ("seconds", "text", "elapsed"),
    [(-5, "0 s", "0 s"), (59.6, "1 min 00 s", "59 s"), (119.9, "2 min 00 s", "1 min")],
)
def test_duration_is_rounded_and_elapsed_time_is_cut(
    seconds: float, text: str, elapsed: str
) -> None:
    span = timedelta(seconds=seconds)
    assert (durations.format_duration(span), durations.format_elapsed(span)) == (text, elapsed)


@pytest.mark.parametrize(
    ("median", "p95", "text"),
    [
        (120, 240, "usually 2 to 4 min"), (170, 190, "usually about 3 min"),
        (60, 60, "usually about 60 s"), (60, 70, "usually 60 to 70 s"),
        (0.2, 90, "usually 0 to 90 s"),
        (45, 300, "usually 45 s to 5 min"), (58, 58.4, "usually about 58 s"),
        (3600, 4200, "usually 60 to 70 min"), (3590, 7300, "usually 60 min to 2 h 02 min"),
        (6000, 9600, "usually 1 h 40 min to 2 h 40 min"),
        (93_600, 180_000, "usually 1 d 2 h to 2 d 2 h"),
    ],
)  # fmt: skip
def test_typical_duration_is_formatted_as_rounded_range(
    median: float, p95: float, text: str
) -> None:
    typical = TypicalDuration(timedelta(seconds=median), timedelta(seconds=p95))
    assert durations.format_typical(typical) == text


@given(st.timedeltas())
def test_any_duration_is_formatted_in_at_most_two_units(duration: timedelta) -> None:
    assert len(durations.format_duration(duration).split()) in {2, 4}


def stage(policy: str = "", *, paused: bool = False) -> Stage:
    pipeline = Pipeline(project=Project(slug="shop"), slug="checkout")
    return Stage(pipeline=pipeline, concurrency_policy=policy, paused=paused)


@pytest.mark.parametrize("policy", ["allow", "queue", "forbid"])
def test_documented_concurrency_policy_is_explained(policy: str) -> None:
    [note] = concurrency_policy.stage_notes(stage(policy))
    assert keys(note) == policy


@pytest.mark.parametrize("policy", ["latest", "replace"])
def test_undocumented_concurrency_policy_is_explained_with_reservation(policy: str) -> None:
    [text] = map(str, concurrency_policy.stage_notes(stage(policy)))
    assert text.startswith(f"Policy “{policy}”: probably ")
    assert text.endswith("(undocumented).")


def test_unknown_concurrency_policy_is_only_named() -> None:
    [note] = concurrency_policy.stage_notes(stage("something-new"))
    assert keys_and_params(note) == ("other_policy", {"policy": "something-new"})


@pytest.mark.parametrize(
    ("policy", "can_queue"),
    [
        ("allow", False),
        ("queue", True),
        ("forbid", False),
        ("latest", True),
        ("replace", False),
        ("something-new", False),
        ("", False),
    ],
)
def test_run_queues_others_only_by_a_known_policy(policy: str, can_queue: bool) -> None:
    assert concurrency_policy.can_queue_others(policy) is can_queue


@pytest.mark.parametrize(("count", "words"), [(1, "1 run skipped "), (2, "2 runs skipped ")])
def test_skipped_runs_are_singular_or_plural(count: int, words: str) -> None:
    text = concurrency_policy.skipped_text(count, in_flight=True)
    assert str(text).startswith(words)


def test_paused_flow_is_explained() -> None:
    assert [keys(note) for note in concurrency_policy.stage_notes(stage(paused=True))] == ["paused"]


def run(**ids: Any) -> Run:
    project = Project(slug=ids.get("project", "shop"))
    pipeline = Pipeline(project=project, slug=ids.get("pipeline", "checkout"))
    stage = Stage(pipeline=pipeline, name="Production")
    return Run(stage=stage, run_id=ids.get("run", "r1"))


def northflank_url(of: Run) -> str:
    link = links.northflank_link(of)
    assert link is not None
    return link.url


def test_northflank_link_in_sandbox_is_none(db: None, settings: Settings) -> None:
    settings.SANDBOX = True
    assert links.northflank_link(run()) is None


def test_northflank_link_without_team_is_none(db: None, settings: Settings) -> None:
    settings.SANDBOX = False
    assert links.northflank_link(run()) is None


def test_northflank_link_has_team_of_setting(db: None, settings: Settings) -> None:
    settings.SANDBOX, settings.NORTHFLANK_TEAM_ID = False, "acme"
    assert northflank_url(run()) == "https://app.northflank.com/t/acme/project/shop"


def test_northflank_link_has_team_of_api_token(db: None, settings: Settings) -> None:
    settings.SANDBOX = False
    Upstream.objects.create(source="x", team="learned")
    assert "/t/learned/" in northflank_url(run())


def test_northflank_link_prefers_team_of_setting(db: None, settings: Settings) -> None:
    settings.SANDBOX, settings.NORTHFLANK_TEAM_ID = False, "acme"
    Upstream.objects.create(source="x", team="learned")
    assert "/t/acme/" in northflank_url(run())


def test_northflank_link_template_supports_all_fields(db: None, settings: Settings) -> None:
    settings.NORTHFLANK_TEAM_ID = "acme"
    settings.NORTHFLANK_RUN_URL_TEMPLATE = "http://x/{team}/{project}/{pipeline}/{stage}/{run}"
    assert northflank_url(run()) == "http://x/acme/shop/checkout/production/r1"


HOSTILE = 'a/../b?c=d#e f"<é{run}%2f'


def test_northflank_link_escapes_hostile_ids(db: None, settings: Settings) -> None:
    settings.NORTHFLANK_RUN_URL_TEMPLATE = "http://x/{project}/{run}"
    url = urlsplit(northflank_url(run(project=HOSTILE, run=HOSTILE)))
    assert (url.path.count("/"), url.query, url.fragment) == (2, "", "")


def test_northflank_link_with_hostile_ids_is_html_safe(db: None, settings: Settings) -> None:
    settings.NORTHFLANK_RUN_URL_TEMPLATE = "http://x/{run}"
    assert not set("\"'<> {}") & set(northflank_url(run(run=HOSTILE)))


@pytest.mark.parametrize(
    ("template", "key", "opens_run"),
    [
        ("", "project", False),
        ("http://x/{project}", "northflank", False),
        ("http://x/{project}/{stage}?r={run}", "run", True),
        ("http://x/{team}", "northflank", False),
    ],
)
def test_northflank_link_says_what_it_opens(
    db: None, settings: Settings, template: str, key: str, opens_run: bool
) -> None:
    settings.SANDBOX, settings.NORTHFLANK_TEAM_ID = False, "acme"
    settings.NORTHFLANK_RUN_URL_TEMPLATE = template
    link = links.northflank_link(run())
    assert link is not None
    assert (keys(link.label), link.opens_run) == (key, opens_run)
