"""Why a list is empty: each state has its kind and its text."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dashboard.accounts import permissions
from dashboard.accounts.permissions import Permissions
from dashboard.web.components.data_age import DataAge
from dashboard.web.components.lists import empty_states
from dashboard.web.components.lists.empty_states import EmptyState
from dashboard.web.components.lists.record_pages import RecordFilter
from tests.support.messages import keys

AT = datetime(2026, 1, 1, tzinfo=UTC)
RESTRICTED = Permissions(True, False, frozenset(), frozenset())
FRESH = DataAge(AT, is_stale=False)
STALE = DataAge(AT, is_stale=True)
INCOMPLETE = DataAge(AT, is_stale=False, incomplete_text="1 of 2 stages has not been read.")
INCOMPLETE_AND_STALE = replace(INCOMPLETE, is_stale=True)
UNREAD = DataAge(None, is_stale=True)
# Of a user who sees one project, whose pipelines have not been listed yet.
UNLISTED = replace(UNREAD, incomplete_text="Pipelines of 1 project have not been loaded.")


def kind_and_key(empty: EmptyState) -> tuple[str, str]:
    return "cannot_see" if empty.is_uncertain else "known", keys(empty.text)


@pytest.mark.parametrize("name", ["attention", "in-flight", "failed"])
@pytest.mark.parametrize(
    ("user", "age", "above", "expected"),
    [
        (permissions.ALL, FRESH, 0, ("known", "{}")),
        (RESTRICTED, FRESH, 0, ("known", "{} visible")),
        (RESTRICTED, UNREAD, 0, ("cannot_see", "incomplete {} visible")),
        (RESTRICTED, UNLISTED, 0, ("cannot_see", "incomplete {} visible")),
        (permissions.ALL, STALE, 0, ("cannot_see", "stale {}")),
        (permissions.ALL, INCOMPLETE, 0, ("cannot_see", "incomplete {}")),
        (permissions.ALL, INCOMPLETE_AND_STALE, 0, ("cannot_see", "incomplete {}")),
        (permissions.ALL, FRESH, 2, ("known", "above")),
        (permissions.ALL, STALE, 2, ("known", "stale above")),
        (permissions.ALL, INCOMPLETE_AND_STALE, 2, ("known", "incomplete above")),
    ],
)
def test_section(
    name: str, user: Permissions, age: DataAge, above: int, expected: tuple[str, str]
) -> None:
    kind, key = expected
    empty = empty_states.section(name, user, age, above_count=above)
    assert kind_and_key(empty) == (kind, key.format(name))


@pytest.mark.parametrize("name", ["aborts", "access_log", "rights_changes"])
def test_log_says_whether_the_filter_or_the_position_is_why(name: str) -> None:
    empty = empty_states.log(name, RecordFilter(before_pk=1))
    assert kind_and_key(empty) == ("known", "past_end")
    assert kind_and_key(empty_states.log(name, RecordFilter())) == ("known", name)
    empty = empty_states.log(name, RecordFilter(before_pk=1, parameters={"kind": "any"}))
    assert kind_and_key(empty) == ("known", "filtered")
    assert keys(empty.action_label) == "show_all"


def test_log_of_runs_says_that_others_may_be_hidden() -> None:
    empty = empty_states.log("aborts", RecordFilter(), sees_all=False)
    assert kind_and_key(empty) == ("known", "aborts visible")


@pytest.mark.parametrize(
    ("user", "flags", "expected"),
    [
        (permissions.ALL, {}, ("known", "pipelines")),
        (RESTRICTED, {}, ("known", "pipelines_visible")),
        (permissions.ALL, {"is_incomplete": True}, ("cannot_see", "pipelines_unread")),
        (RESTRICTED, {"is_incomplete": True}, ("cannot_see", "incomplete pipelines_visible")),
        (permissions.ALL, {"is_filtered": True}, ("known", "filtered")),
        (
            permissions.ALL,
            {"is_filtered": True, "is_incomplete": True},
            ("known", "incomplete filtered"),
        ),
    ],
)
def test_pipelines(user: Permissions, flags: dict[str, bool], expected: tuple[str, str]) -> None:
    settings = {"is_incomplete": False} | flags
    assert kind_and_key(empty_states.pipelines(user, **settings)) == expected


@pytest.mark.parametrize(
    ("age", "text", "is_short", "expected"),
    [
        (FRESH, "nothing", False, ("known", "search search_extent")),
        (STALE, "no thing", False, ("known", "search search_extent")),
        (FRESH, "no", True, ("known", "search_short search_extent")),
        (INCOMPLETE, "nothing", False, ("cannot_see", "incomplete search search_extent")),
    ],
)
def test_search(age: DataAge, text: str, is_short: bool, expected: tuple[str, str]) -> None:
    assert kind_and_key(empty_states.search(age, text, is_short=is_short)) == expected
