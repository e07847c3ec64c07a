"""Every address of the admin, as every kind of person: what each gets, by model."""

import logging
import re
from collections.abc import Iterator

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from pytest_django import Settings

from dashboard.accounts.administration import group_changes
from dashboard.accounts.administration.administrators import Author
from dashboard.models import Stage
from tests.support import crawl, factories
from tests.support.crawl import METHODS, Result, World
from tests.support.services import EXHAUSTIVE

pytestmark = pytest.mark.slow

STAFF = ("superuser", "helpdesk", "glass")
OTHERS = ("nobody", "gone", "stranger", "member", "viewer", "manager")

# By model, what superusers may do: (v)iew, (a)dd, (c)hange. Other staff may do nothing: here they
# have permissions for accounts, groups and grants only, which are changed under /people/.
RIGHTS = {
    "dashboard/rightschange": "v",
    "dashboard/abort": "v",
    "dashboard/accessevent": "v",
    "dashboard/bulkabort": "v",
    "dashboard/project": "v",
    "dashboard/pipeline": "v",
    "dashboard/stagetiming": "vac",
    "dashboard/stage": "v",
}

# Of other addresses: what the staff gets by GET and by POST, and what others get who are signed in.
OTHER_ADDRESSES = {
    "admin/": ("200", "200", "sign-in"),
    "admin/login/": ("index", "index", "403"),
    "admin/password_change/": ("my_account", "my_account", "my_account"),
    "admin/password_change/done/": ("200", "405", "sign-in"),
    "admin/autocomplete/": ("403", "405", "sign-in"),  # without a field
    "admin/jsi18n/": ("200", "405", "sign-in"),
    "admin/r/1/1/": ("404", "404", "sign-in"),
    "admin/nonsense/": ("404", "404", "sign-in"),
}


@pytest.fixture
def world(db: None, settings: Settings) -> Iterator[World]:
    settings.BREAK_GLASS_ACCOUNT = "glass"
    logging.disable(logging.CRITICAL)  # a line for each of hundreds of refusals
    created = crawl.create_world()
    factories.timing(Stage.objects.get(name="Staging"))
    group_changes.add_group(Author(User.objects.get(username="superuser"), None), "Team")
    yield created
    logging.disable(logging.NOTSET)


def addresses() -> list[str]:
    """Return an address of each pattern of the admin, of a model's first row where it needs one."""
    keys = {
        model._meta.label_lower.replace(".", "/"): model._default_manager.values_list("pk")[0][0]
        for model in admin.site._registry
    }
    found = []
    for _, route in crawl.patterns():
        if route.startswith("admin/"):
            path = route.replace("^(?P<app_label>dashboard)/$", "dashboard/")
            path = path.replace("(?P<url>.*)$", "nonsense/")
            key = keys.get("/".join(route.split("/")[1:3]), 1)
            found.append(re.sub(r"<[^>]+>", str(key), path))
    return list(dict.fromkeys(found))


def attempts(number: int) -> list[tuple[str, list[str]]]:
    """Return who tries which methods at an address: of people with the same rights one in turn.

    In an exhaustive run everybody tries everything.
    """
    if EXHAUSTIVE:
        return [(person, list(METHODS)) for person in (*STAFF, *OTHERS)]
    return [
        ("superuser", ["GET", "POST", METHODS[2 + number % 3]]),
        (STAFF[1 + number % 2], ["GET", "POST"]),
        (OTHERS[number % len(OTHERS)], ["GET", "POST"]),
    ]


def expected(path: str, method: str, person: str) -> str:
    """Return what a person gets with a CSRF token."""
    if path == "admin/logout/":
        signed_out = "sign-in" if person == "nobody" else "sign-in*"
        return signed_out if method == "POST" else "405"
    if person in {"nobody", "gone"}:
        return "sign-in"
    if path in OTHER_ADDRESSES:
        get, post, others = OTHER_ADDRESSES[path]
        if person in OTHERS:
            return others
        return post if method == "POST" else "405" if post == "405" and method != "GET" else get
    if person in OTHERS:
        return "sign-in"
    return expected_of_staff(path, method, person)


def expected_of_staff(path: str, method: str, person: str) -> str:
    is_superuser = person in {"superuser", "glass"}
    if path == "admin/dashboard/":
        return "200" if is_superuser else "404"
    _, app, model, *rest, _ = path.split("/")
    page = rest[-1] if rest else "changelist"
    if page.isdecimal():
        return f"{app}_{model}_change"  # a redirect; that page decides
    is_change = page == "change" and method == "POST"
    needed = {"add": "a", "delete": "d"}.get(page, "c" if is_change else "v")
    if not is_superuser or needed not in RIGHTS[f"{app}/{model}"]:
        return "403"
    if is_change:
        return f"{app}_{model}_changelist*"  # an empty form is a valid one
    return "200"  # also of an empty form, with its errors


def shown(result: Result) -> str:
    outcome = "sign-in" if result.outcome in {"login", "admin/login/"} else result.outcome
    return f"{outcome}*" if result.writes else outcome


def test_every_model_of_the_admin_is_in_the_table() -> None:
    names = {model._meta.label_lower.replace(".", "/") for model in admin.site._registry}
    assert names == RIGHTS.keys()


def test_every_person_gets_at_every_address_of_the_admin_what_the_table_says(world: World) -> None:
    wrong = []
    for number, path in enumerate(addresses()):
        for person, methods in attempts(number):
            for method in methods:
                result = crawl.request(world.browsers[person], method, f"/{path}", csrf=True)
                right = expected(path, method, person)
                if shown(result) != right:
                    wrong.append(f"{person}: {method} {path}: {shown(result)}, not {right}")
                if person in OTHERS and crawl.HIDDEN in result.text:
                    wrong.append(f"{person}: {method} {path} shows what is hidden")
    assert not wrong, "\n".join(wrong)


def test_no_form_of_the_admin_without_csrf_token_changes_anything(world: World) -> None:
    wrong = []
    for number, path in enumerate(addresses()):
        for method in METHODS[1:] if EXHAUSTIVE else ("POST", METHODS[2 + number % 3]):
            result = crawl.request(world.browsers["superuser"], method, f"/{path}", csrf=False)
            if shown(result) != "403":
                wrong.append(f"{method} {path}: {shown(result)}")
    assert not wrong, "\n".join(wrong)
