"""Every address, as every kind of person and token: what each gets.

The tables say it by address and method; an address that is missing in them fails. Tokens of the API
have a table of their own.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from pytest_django import Settings

from tests.support import crawl
from tests.support.crawl import METHODS, Place, Result, World
from tests.support.services import EXHAUSTIVE

pytestmark = pytest.mark.slow

type Row = dict[str, str]  # by person: an outcome; with “*”, what it gets has changed something

# A member of one stage asks for both places: “elsewhere” for the other one.
ELSEWHERE = "elsewhere"
SIGNED_IN = ("stranger", "member", ELSEWHERE, "viewer", "manager", "superuser")
PERSONS = ("nobody", *SIGNED_IN)
# Who gets what others get: a deactivated account with a session, the break-glass account.
SAME_AS = {"gone": "nobody", "glass": "superuser"}


def everybody(outcome: str) -> Row:
    """Who is signed in; others are asked to sign in."""
    return dict.fromkeys(PERSONS, outcome) | {"nobody": "login"}


def who_may_view(outcome: str, **others: str) -> Row:
    """Who may view the place; to others it is missing."""
    row = everybody("404") | dict.fromkeys(("member", "viewer", "manager", "superuser"), outcome)
    return row | others


def who_may_abort(outcome: str, **others: str) -> Row:
    """Who may abort in the place; others may view it, or it is missing."""
    return who_may_view(outcome, viewer="403") | others


def owner(outcome: str) -> Row:
    """Whose session or token it is; to others it is missing."""
    return everybody("404") | {"manager": outcome}


def superusers(outcome: str) -> Row:
    return everybody("403") | {"superuser": outcome}


def all_alike(outcome: str) -> Row:
    """Also who is signed out."""
    return dict.fromkeys(PERSONS, outcome)


# By address and method. Methods that are missing: 405, once signed in.
EXPECTED: dict[str, dict[str, Row]] = {
    "now": {"GET": everybody("200")},
    # The first visit is recorded.
    "away": {"GET": everybody("200*"), "POST": everybody("now*")},
    "board": {"GET": everybody("200")},
    "search": {"GET": everybody("200")},
    "aborts": {"GET": everybody("200")},
    "aborts_csv": {"GET": everybody("200")},
    "aborts_json": {"GET": everybody("200")},
    "bulk_abort_new": {
        "GET": who_may_view("200"),
        # 422: none of the selected runs is visible.
        "POST": who_may_abort("sent*", stranger="422", elsewhere="422"),
    },
    "bulk_abort": {"GET": who_may_view("200")},
    "health": {"GET": everybody("200")},
    "help": {"GET": everybody("guide")},
    "guide": {"GET": everybody("200")},
    "guide_picture": {"GET": everybody("200")},
    "access_log": {"GET": superusers("200")},
    "access_log_csv": {"GET": superusers("200")},
    "access_log_json": {"GET": superusers("200")},
    # These accounts have no password to change.
    "my_account": {"GET": everybody("200"), "POST": everybody("403")},
    "session_end": {"POST": owner("my_account*")},
    "sessions_end_others": {"POST": everybody("my_account") | {"manager": "my_account*"}},
    "token_revoke": {"POST": owner("my_account*")},
    "people": {"GET": superusers("200")},
    # 422: an empty form; 409: a form without the version that it has shown.
    "account_new": {"GET": superusers("200"), "POST": superusers("422")},
    "account": {"GET": superusers("200"), "POST": superusers("409")},
    "account_password": {"POST": superusers("422")},
    "account_token_revoke": {"POST": superusers("account*")},
    "groups": {"GET": superusers("200"), "POST": superusers("422")},
    "group": {"GET": superusers("200"), "POST": superusers("409")},
    "group_members": {"POST": superusers("422")},
    "group_delete": {"GET": superusers("200"), "POST": superusers("409")},
    "grant_new": {"GET": superusers("422"), "POST": superusers("422")},
    "grant_remove": {"GET": superusers("200"), "POST": superusers("409")},
    "who_may": {"GET": superusers("200")},
    "rights_changes": {"GET": superusers("200")},
    "rights_changes_csv": {"GET": superusers("200")},
    "rights_changes_json": {"GET": superusers("200")},
    "notices": {"GET": superusers("200"), "POST": superusers("422")},
    "notice_rule": {"GET": superusers("200"), "POST": superusers("422")},
    "notice_test": {"POST": superusers("notices*")},
    "project": {"GET": who_may_view("200")},
    "star": {"POST": who_may_view("board*")},
    "project_trends": {"GET": who_may_view("200")},
    "project_trends_csv": {"GET": who_may_view("200")},
    "pipeline_trends": {"GET": who_may_view("200")},
    "pipeline_trends_csv": {"GET": who_may_view("200")},
    # An empty form is a valid one.
    "stage_durations": {"GET": superusers("200"), "POST": superusers("stage_durations*")},
    "stage_trends": {"GET": who_may_view("200")},
    "stage_trends_csv": {"GET": who_may_view("200")},
    "pipeline": {"GET": who_may_view("200")},
    "stage": {"GET": who_may_view("200")},
    "saved_view_create": {"POST": who_may_view("stage*")},
    "saved_view_update": {"POST": who_may_view("stage", manager="stage*")},  # its owner
    "refresh_stage": {"POST": who_may_view("stage*")},
    "run": {"GET": who_may_view("200")},
    "run_logs": {"GET": who_may_view("200")},
    "refresh_run": {"POST": who_may_view("run*")},
    "abort": {"GET": who_may_view("200"), "POST": who_may_abort("sent*")},
    "abort_left": {"GET": who_may_view("200"), "POST": who_may_view("run")},  # nothing is left
    "dismiss": {"GET": who_may_view("200"), "POST": who_may_abort("run*")},
    "acknowledge": {"GET": who_may_view("run"), "POST": who_may_view("run*")},
    # The run was removed, so nobody is to be told of its end.
    "end_request": {"GET": who_may_view("run"), "POST": who_may_view("run")},
    # Elsewhere the member's own stages are searched.
    "run_search": {"GET": who_may_view("run", elsewhere="200*")},
    "live": {"GET": who_may_view("503")},  # no stream in this process
    "login": dict.fromkeys(("GET", "POST", "PUT"), everybody("now") | {"nobody": "200"})
    | dict.fromkeys(("PATCH", "DELETE"), everybody("now") | {"nobody": "405"}),
    "logout": dict.fromkeys(METHODS, all_alike("405"))
    | {"POST": everybody("login*") | {"nobody": "login", "gone": "login*"}},
    # Sessions open nothing of the API.
    "api_runs": {"GET": all_alike("401")},
    "api_run": {"GET": all_alike("401")},
    "api_abort": {"POST": all_alike("401")},
    "api_dismissal": {"POST": all_alike("401"), "DELETE": all_alike("401")},
    "api_openapi": {"GET": all_alike("401")},
    "api/": dict.fromkeys(METHODS, all_alike("401")),
    "northflank_webhook": {"POST": all_alike("401")},
}
# What opens these is sent with each request, so they need neither a session nor a CSRF token.
WITHOUT_SESSION = (
    "api_runs",
    "api_run",
    "api_abort",
    "api_dismissal",
    "api_openapi",
    "api/",
    "northflank_webhook",
)

# By address and method: what the tokens get, in the order of TOKENS.
TOKENS = ("abort", "read", "member's", "elsewhere", "stranger's")
API: dict[tuple[str, str], tuple[str, ...]] = {
    ("api_runs", "GET"): ("200", "200", "200", "200", "200"),
    ("api_run", "GET"): ("200", "200", "200", "404", "404"),
    ("api_abort", "POST"): ("sent*", "403", "sent*", "404", "404"),
    ("api_dismissal", "POST"): ("200*", "403", "200*", "404", "404"),
    ("api_dismissal", "DELETE"): ("200*", "403", "200*", "404", "404"),
    ("api_openapi", "GET"): ("200",) * 5,
    **{("api/", method): ("404",) * 5 for method in METHODS},
}
REFUSED_TOKENS = ("gone's", "revoked", "expired", "forged")
# What only they may know of, does not appear in what these get.
BLIND = (
    *("nobody", "gone", "stranger", "member", ELSEWHERE, "stranger's", "member's"),
    *REFUSED_TOKENS,
)


@pytest.fixture
def world(db: None, settings: Settings) -> Iterator[World]:
    settings.BREAK_GLASS_ACCOUNT = "glass"
    settings.NOTIFY_URLS = {crawl.CHANNEL: "json://localhost"}
    logging.disable(logging.CRITICAL)  # a line for each of thousands of refusals
    yield crawl.create_world()
    logging.disable(logging.NOTSET)


def addresses() -> list[tuple[str, str]]:
    return list(crawl.patterns())


def methods(person: str, turn: int) -> list[str]:
    """GET and POST, one of them for who gets what others get; in turn one of the rarer methods.

    All of them in an exhaustive run.
    """
    if EXHAUSTIVE:
        return list(METHODS)
    usual = [METHODS[turn % 2]] if person in SAME_AS else ["GET", "POST"]
    return usual if turn % 3 else [*usual, METHODS[2 + turn // 3 % 3]]


def expected(name: str, method: str, person: str) -> str:
    """Return what a person gets with a CSRF token."""
    column = SAME_AS.get(person, person)
    row = EXPECTED[name].get(method)
    if row is not None:
        return row.get(person, row[column])
    return "login" if column == "nobody" and name not in WITHOUT_SESSION else "405"


def expected_without_csrf_token(name: str, method: str, person: str) -> str:
    if name in WITHOUT_SESSION:
        return expected(name, method, person)
    # Who has signed in meanwhile is not asked again.
    is_signed_in = SAME_AS.get(person, person) != "nobody"
    return "login" if name == "login" and is_signed_in else "403"


def place(world: World, person: str) -> Place:
    return world.other if person in {ELSEWHERE, "stranger", "nobody"} else world.own


def shown(result: Result) -> str:
    return f"{result.outcome}*" if result.writes else result.outcome


def test_every_address_is_in_the_table() -> None:
    assert {name for name, _ in addresses()} == EXPECTED.keys()


def test_every_person_gets_at_every_address_what_the_table_says(world: World) -> None:
    wrong = []
    for number, (name, route) in enumerate(addresses()):
        for index, person in enumerate((*PERSONS, *SAME_AS)):
            client = world.browsers["member" if person == ELSEWHERE else person]
            here = place(world, person)
            path = here.path(name, route)
            for method in methods(person, number + index):
                form = here.forms.get(name)
                result = crawl.request(client, method, path, form, csrf=True)
                if shown(result) != (right := expected(name, method, person)):
                    wrong.append(f"{person}: {method} {path}: {shown(result)}, not {right}")
                if person in BLIND and crawl.HIDDEN in result.text:
                    wrong.append(f"{person}: {method} {path} shows what is hidden")
    assert not wrong, "\n".join(wrong)


def test_no_form_without_csrf_token_changes_anything(world: World) -> None:
    wrong = []
    for number, (name, route) in enumerate(addresses()):
        for index, person in enumerate((*PERSONS, *SAME_AS)):
            client = world.browsers["member" if person == ELSEWHERE else person]
            here = place(world, person)
            path = here.path(name, route)
            for method in methods(person, number + index):
                if method == "GET":
                    continue
                form = here.forms.get(name)
                result = crawl.request(client, method, path, form, csrf=False)
                right = expected_without_csrf_token(name, method, person)
                if shown(result) != right:
                    wrong.append(f"{person}: {method} {path}: {shown(result)}, not {right}")
    assert not wrong, "\n".join(wrong)


def test_every_token_gets_at_every_address_of_the_api_what_the_table_says(world: World) -> None:
    wrong = []
    for name, route in addresses():
        if not name.startswith("api"):
            continue
        for method in METHODS:
            outcomes = API.get((name, method), ("405",) * len(TOKENS))
            rights = dict(zip(TOKENS, outcomes, strict=True))
            refused = "401" if (name, method) in API else "405"
            for token, right in (rights | dict.fromkeys(REFUSED_TOKENS, refused)).items():
                here = world.other if token in {ELSEWHERE, "stranger's"} else world.own
                path = here.path(name, route)
                program = world.programs["member's" if token == ELSEWHERE else token]
                result = crawl.request(program, method, path, here.forms.get(name), csrf=False)
                if shown(result) != right:
                    wrong.append(f"{token}: {method} {path}: {shown(result)}, not {right}")
                if token in BLIND and crawl.HIDDEN in result.text:
                    wrong.append(f"{token}: {method} {path} shows what is hidden")
    assert not wrong, "\n".join(wrong)


def test_a_token_opens_no_page(world: World) -> None:
    wrong = []
    for name, route in crawl.patterns():
        if name in WITHOUT_SESSION:
            continue
        path = world.own.path(name, route)
        with_token = crawl.request(world.programs["abort"], "GET", path, csrf=False)
        without = crawl.request(world.browsers["nobody"], "GET", path, csrf=False)
        if with_token.outcome != without.outcome or with_token.writes:
            wrong.append(f"{path}: {shown(with_token)}, not {without.outcome}")
    assert not wrong, "\n".join(wrong)


LIST_PATTERNS = """
import json, django
django.setup()
from tests.support import crawl
print(json.dumps(sorted({name for name, _ in crawl.patterns()})))
"""


def test_debug_and_a_provider_add_no_address_but_those_of_the_provider() -> None:
    # In a process of its own: the addresses depend on settings as they are at the start.
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "dashboard.settings",
        "DEBUG": "true",
        "OIDC_ISSUER": "https://id.example.com",
    }
    output = subprocess.run(
        [sys.executable, "-c", LIST_PATTERNS], env=environment, capture_output=True, check=True
    ).stdout
    added = set(json.loads(output)) - {name for name, _ in crawl.patterns()}
    assert added == {"oidc_sign_in", "oidc_callback"}
