"""Saved views: one's own, those that are shared, and the one that pages open with."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from dashboard.accounts import permissions
from dashboard.models import DefaultView, Run, SavedView, Stage
from dashboard.runs import saved_views
from dashboard.web.components import run_row
from tests.support import factories
from tests.support.html import HTMX, See, one, parsed, words

FAILED = "status=failure&q=nightly"

type Post = Callable[..., HttpResponse]


def save_at(stage: Stage) -> str:
    return reverse("save_view", args=run_row.place_args(stage))


def change_at(stage: Stage, view: SavedView | int) -> str:
    key = view if isinstance(view, int) else view.pk
    return reverse("change_view", args=[*run_row.place_args(stage), key])


@pytest.fixture
def desk(stage: Stage) -> Callable[[User], Client]:
    """The browser of a person."""

    def of(person: User) -> Client:
        client = Client()
        client.force_login(person)
        return client

    return of


@pytest.fixture
def save(at_desk: Client, stage: Stage) -> Post:
    """Save a view as a manager."""

    def post(name: str = "Failed", query: str = FAILED, **fields: str) -> Any:
        return at_desk.post(save_at(stage), {"name": name, "query": query, **fields})

    return post


@pytest.fixture
def view(manager: User) -> SavedView:
    return SavedView.objects.create(owner=manager, name="Failed", query=FAILED)


def links(html: Any) -> list[str]:
    return [words(link) for link in html.css(".views nav a")]


# --- Saving -------------------------------------------------------------------------------------


def test_a_filter_is_saved_and_one_click_away(save: Post, see: See, stage: Stage) -> None:
    answer = save()
    assert (answer.status_code, answer["Location"]) == (
        303, f"{factories.address(stage)}?{FAILED}",
    )  # fmt: skip
    html = see(answer["Location"])
    assert words(one(html, "#notices")) == "“Failed” is saved."
    assert links(html) == ["All runs", "Failed"]
    assert one(html, ".views nav [aria-current]").attributes["href"] == f"?{FAILED}"


def test_a_view_is_usable_on_every_stage(save: Post, see: See) -> None:
    save()
    staging = factories.stage("Staging")
    link = one(see(factories.address(staging)), ".views nav a:last-child")
    assert link.attributes["href"] == f"?{FAILED}"


def test_what_is_saved_is_the_filter_and_not_the_place_in_the_list(save: Post) -> None:
    save(query="q=nightly&before=0.1.1&foo=bar&status=nope&status=failure&page=2")
    assert SavedView.objects.get().query == FAILED


def test_a_view_of_the_same_name_is_replaced(save: Post) -> None:
    save()
    save(query="overdue=1", shared="1")
    view = SavedView.objects.get()
    assert (view.query, view.shared) == ("overdue=1", True)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"name": ""}, "Give the view a name."),
        ({"name": " \0 "}, "Give the view a name."),
        ({"name": "x" * 61}, "A name has at most 60 characters."),
        ({"query": ""}, "there is nothing to save"),
        ({"query": "foo=bar&status=nope"}, "there is nothing to save"),
        ({"query": "before=0.1.1"}, "there is nothing to save"),
    ],
)
def test_what_cannot_be_saved_is_said(
    fields: dict[str, str], why: str, save: Post, see: See
) -> None:
    answer = save(**fields)
    assert why in words(one(see(answer["Location"]), "#notices"))
    assert not SavedView.objects.exists()


def test_a_filter_that_is_too_long_is_not_saved(save: Post, see: See, stage: Stage) -> None:
    for number in range(30):
        factories.run(stage, status=f"{number}-" + "😀" * 57)
    query = urlencode([("status", f"{number}-" + "😀" * 57) for number in range(30)])
    assert "too long" in words(one(see(save(query=query)["Location"]), "#notices"))


def test_nobody_has_more_than_so_many(save: Post, see: See, manager: User) -> None:
    SavedView.objects.bulk_create(
        SavedView(owner=manager, name=f"{number}", query=FAILED)
        for number in range(saved_views.MOST)
    )
    answer = save("One more")
    assert "You have 30 views" in words(one(see(answer["Location"]), "#notices"))
    assert save("7", "overdue=1").status_code == 303
    assert SavedView.objects.get(name="7").query == "overdue=1"
    assert SavedView.objects.count() == saved_views.MOST


def test_a_name_stays_text(save: Post, see: See) -> None:
    save('<b id="hostile">"&')
    html = see(f"{factories.address(Stage.objects.get())}?{FAILED}")
    assert html.css("#hostile") == []
    assert '<b id="hostile">"&' in links(html)


def test_two_people_may_use_one_name(save: Post, viewer: User) -> None:
    SavedView.objects.create(owner=viewer, name="Failed", query="overdue=1")
    save()
    assert SavedView.objects.count() == 2


# --- Whose it is --------------------------------------------------------------------------------


def test_a_view_is_ones_own_until_it_is_shared(
    save: Post, stage: Stage, viewer: User, desk: Callable[[User], Client]
) -> None:
    save()
    address = factories.address(stage)
    assert links(parsed(desk(viewer).get(address))) == []
    save(shared="1")
    assert links(parsed(desk(viewer).get(address))) == ["All runs", "Failed manager"]


def test_who_may_abort_nowhere_may_not_share(
    looking_on: Client, stage: Stage, viewer: User
) -> None:
    page = parsed(looking_on.get(f"{factories.address(stage)}?{FAILED}"))
    assert page.css('.views [name="name"]') != []
    assert page.css('.views [name="shared"]') == []
    fields = {"name": "Mine", "query": FAILED}
    assert looking_on.post(save_at(stage), fields | {"shared": "1"}).status_code == 403
    assert not SavedView.objects.exists()
    assert looking_on.post(save_at(stage), fields).status_code == 303
    viewer.is_staff = True
    viewer.save()
    assert looking_on.post(save_at(stage), fields | {"shared": "1"}).status_code == 303


@pytest.mark.parametrize("do", ["delete", "open"])
def test_a_view_that_one_does_not_see_cannot_be_touched(
    do: str, looking_on: Client, stage: Stage, view: SavedView
) -> None:
    answer = looking_on.post(change_at(stage, view), {"do": do})
    notices = one(parsed(looking_on.get(answer["Location"])), "#notices")
    assert words(notices) == "There is no such view any more."
    assert SavedView.objects.exists()
    assert not DefaultView.objects.exists()


def test_a_shared_view_is_deleted_by_its_owner_or_an_administrator(
    looking_on: Client, stage: Stage, view: SavedView, viewer: User
) -> None:
    SavedView.objects.update(shared=True)
    assert looking_on.post(change_at(stage, view), {"do": "delete"}).status_code == 403
    assert SavedView.objects.exists()
    page = parsed(looking_on.get(f"{factories.address(stage)}?q=x"))
    assert page.css('.views [value="delete"]') == []
    viewer.is_staff = True
    viewer.save()
    looking_on.post(change_at(stage, view), {"do": "delete"})
    assert not SavedView.objects.exists()


def test_an_administrator_does_not_reach_what_is_not_shared(view: SavedView, viewer: User) -> None:
    viewer.is_staff = viewer.is_superuser = True
    viewer.save()
    with pytest.raises(saved_views.Refused):
        saved_views.delete(viewer, view.pk)


def test_views_go_with_the_account(view: SavedView, manager: User) -> None:
    DefaultView.objects.create(user=manager, view=view)
    manager.delete()
    assert not SavedView.objects.exists()


def test_a_stage_that_is_hidden_is_not_found(
    at_desk: Client, stage: Stage, view: SavedView
) -> None:
    permissions.Grant.objects.all().delete()
    assert at_desk.post(save_at(stage), {"name": "x", "query": FAILED}).status_code == 404
    assert at_desk.post(change_at(stage, view), {"do": "delete"}).status_code == 404
    assert SavedView.objects.count() == 1


# --- The one that pages open with ---------------------------------------------------------------


@pytest.fixture
def opening(view: SavedView, manager: User) -> SavedView:
    DefaultView.objects.create(user=manager, view=view)
    return view


def test_a_view_can_be_saved_as_what_pages_open_with(save: Post, at_desk: Client) -> None:
    save(default="1")
    staging = factories.address(factories.stage("Staging"))
    answer = at_desk.get(staging)
    assert (answer.status_code, answer["Location"]) == (302, f"{staging}?{FAILED}")
    page = parsed(at_desk.get(answer["Location"]))
    assert links(page) == ["All runs", "Failed (opens first)"]
    assert one(page, ".views nav a:first-child").attributes["href"] == "?all=1"


@pytest.mark.parametrize(
    "query", ["all=1", "status=running", "q=", "page=2", "before=x", "utm_source=alert"]
)
def test_an_address_that_asks_for_anything_is_left_alone(
    query: str, at_desk: Client, stage: Stage, opening: SavedView
) -> None:
    assert at_desk.get(f"{factories.address(stage)}?{query}").status_code == 200


def test_a_page_that_is_open_stays_what_it_is(
    at_desk: Client, stage: Stage, opening: SavedView
) -> None:
    assert at_desk.get(factories.address(stage), headers=HTMX).status_code == 200


def test_nobody_elses_pages_change(looking_on: Client, stage: Stage, opening: SavedView) -> None:
    assert looking_on.get(factories.address(stage)).status_code == 200


def test_there_is_one_at_most_and_it_can_be_taken_back(
    at_desk: Client, stage: Stage, opening: SavedView, manager: User
) -> None:
    other = SavedView.objects.create(owner=manager, name="Late", query="overdue=1")
    page = at_desk.post(change_at(stage, other), {"do": "open", "query": FAILED})
    assert page["Location"].endswith(FAILED)
    assert at_desk.get(factories.address(stage))["Location"].endswith("?overdue=1")
    at_desk.post(change_at(stage, other), {"do": "open-all"})
    assert at_desk.get(factories.address(stage)).status_code == 200


def test_a_view_that_is_no_longer_shared_opens_nobody_elses_pages(
    looking_on: Client, stage: Stage, view: SavedView, viewer: User
) -> None:
    SavedView.objects.update(shared=True)
    looking_on.post(change_at(stage, view), {"do": "open"})
    assert looking_on.get(factories.address(stage)).status_code == 302
    SavedView.objects.update(shared=False)
    assert looking_on.get(factories.address(stage)).status_code == 200


def test_a_view_that_is_deleted_opens_nothing(
    at_desk: Client, stage: Stage, opening: SavedView
) -> None:
    at_desk.post(change_at(stage, opening), {"do": "delete"})
    assert at_desk.get(factories.address(stage)).status_code == 200


# --- Where nothing may be changed ---------------------------------------------------------------


def test_read_only_means_views_too(
    at_desk: Client, stage: Stage, opening: SavedView, settings: Settings, see: See
) -> None:
    settings.READ_ONLY = True
    assert at_desk.post(save_at(stage), {"name": "x", "query": FAILED}).status_code == 403
    for do in ("delete", "open", "open-all"):
        assert at_desk.post(change_at(stage, opening), {"do": do}).status_code == 403
    assert DefaultView.objects.get().view == SavedView.objects.get()
    page = see(f"{factories.address(stage)}?q=x")
    assert links(page) == ["All runs", "Failed (opens first)"]
    assert page.css('.views form, .views [method="post"]') == []


def test_forms_are_posted_with_a_token(stage: Stage, manager: User, view: SavedView) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(manager)
    assert client.post(save_at(stage), {"name": "x", "query": FAILED}).status_code == 403
    assert client.post(change_at(stage, view), {"do": "delete"}).status_code == 403
    page = parsed(client.get(f"{factories.address(stage)}?q=x"))
    forms = page.css('.views form[method="post"]')
    assert len(forms) == 2
    for form in forms:
        assert one(form, '[name="csrfmiddlewaretoken"]').attributes["value"]


@pytest.mark.parametrize("address", [save_at, lambda stage: change_at(stage, 1)])
def test_looking_changes_nothing(
    address: Callable[[Stage], str], at_desk: Client, stage: Stage
) -> None:
    assert at_desk.get(address(stage)).status_code == 405


def test_what_nobody_asked_for_changes_nothing(
    at_desk: Client, stage: Stage, opening: SavedView, run: Run
) -> None:
    answer = at_desk.post(change_at(stage, opening), {"do": "explode"})
    assert answer.status_code == 303
    assert DefaultView.objects.exists()
