"""Saved views: the user's own, shared ones, and the default."""

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
from dashboard.web.http import links
from tests.support import factories
from tests.support.html import GetPage, parse_html, select_one, text_of

FAILED = "status=failure&q=nightly"

type Post = Callable[..., HttpResponse]


def save_address(stage: Stage) -> str:
    return reverse("saved_view_create", args=links.stage_url_args(stage))


def change_address(stage: Stage, view: SavedView | int) -> str:
    key = view if isinstance(view, int) else view.pk
    return reverse("saved_view_update", args=[*links.stage_url_args(stage), key])


@pytest.fixture
def client_for(stage: Stage) -> Callable[[User], Client]:
    """Return a function that returns the browser of a user."""

    def create(user: User) -> Client:
        client = Client()
        client.force_login(user)
        return client

    return create


@pytest.fixture
def save(operator_client: Client, stage: Stage) -> Post:
    """Save a view as a manager."""

    def post(name: str = "Failed", query: str = FAILED, **fields: str) -> Any:
        return operator_client.post(save_address(stage), {"name": name, "query": query, **fields})

    return post


@pytest.fixture
def view(manager: User) -> SavedView:
    return SavedView.objects.create(owner=manager, name="Failed", query=FAILED)


def view_links(html: Any) -> list[str]:
    return [text_of(link) for link in html.css(".saved-views nav a")]


# --- Saving -------------------------------------------------------------------------------------


def test_saved_view_is_listed_on_stage_page(save: Post, get_page: GetPage, stage: Stage) -> None:
    answer = save()
    assert (answer.status_code, answer["Location"]) == (
        303, f"{factories.address(stage)}?{FAILED}",
    )  # fmt: skip
    html = get_page(answer["Location"])
    assert text_of(select_one(html, "#notices")) == "“Failed” saved."
    assert view_links(html) == ["All runs", "Failed"]
    assert select_one(html, ".saved-views nav [aria-current]").attributes["href"] == f"?{FAILED}"


def test_saved_view_with_same_name_is_replaced(save: Post) -> None:
    save()
    save(query="overdue=1", shared="1")
    view = SavedView.objects.get()
    assert (view.query, view.shared) == ("overdue=1", True)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": ""}, "Enter a name for the view."),
        ({"name": " \0 "}, "Enter a name for the view."),
        ({"name": "x" * 61}, "View names can have at most 60 characters."),
        ({"query": ""}, "there is nothing to save"),
        ({"query": "foo=bar&status="}, "there is nothing to save"),
        ({"query": "before=0.1.1"}, "there is nothing to save"),
    ],
)
def test_invalid_view_is_rejected_with_message(
    fields: dict[str, str], reason: str, save: Post, get_page: GetPage
) -> None:
    answer = save(**fields)
    assert reason in text_of(select_one(get_page(answer["Location"]), "#notices"))
    assert not SavedView.objects.exists()


def test_view_with_overlong_query_is_rejected(save: Post, get_page: GetPage, stage: Stage) -> None:
    statuses = [f"{number}-" + "😀" * 600 for number in range(5)]
    for status in statuses:
        factories.run(stage, status=status)
    query = urlencode({"status": statuses}, doseq=True)
    assert "too long" in text_of(select_one(get_page(save(query=query)["Location"]), "#notices"))


def test_saved_views_over_limit_are_rejected(save: Post, get_page: GetPage, manager: User) -> None:
    SavedView.objects.bulk_create(
        SavedView(owner=manager, name=f"{number}", query=FAILED)
        for number in range(saved_views.MAX_VIEWS_PER_USER)
    )
    answer = save("One more")
    assert "You have 30 views" in text_of(select_one(get_page(answer["Location"]), "#notices"))
    assert save("7", "overdue=1").status_code == 303
    assert SavedView.objects.get(name="7").query == "overdue=1"
    assert SavedView.objects.count() == saved_views.MAX_VIEWS_PER_USER


# --- Owners -------------------------------------------------------------------------------------


def test_saved_view_is_private_until_shared(
    save: Post, stage: Stage, viewer: User, client_for: Callable[[User], Client]
) -> None:
    save()
    address = factories.address(stage)
    assert view_links(parse_html(client_for(viewer).get(address))) == []
    save(shared="1")
    assert view_links(parse_html(client_for(viewer).get(address))) == ["All runs", "Failed manager"]


def test_sharing_view_requires_abort_permission_or_superuser(
    viewer_client: Client, stage: Stage, viewer: User
) -> None:
    page = parse_html(viewer_client.get(f"{factories.address(stage)}?{FAILED}"))
    assert page.css('.saved-views [name="name"]') != []
    assert page.css('.saved-views [name="shared"]') == []
    fields = {"name": "Mine", "query": FAILED}
    assert viewer_client.post(save_address(stage), fields | {"shared": "1"}).status_code == 403
    assert not SavedView.objects.exists()
    assert viewer_client.post(save_address(stage), fields).status_code == 303
    viewer.is_superuser = True
    viewer.save()
    assert viewer_client.post(save_address(stage), fields | {"shared": "1"}).status_code == 303


@pytest.mark.parametrize("action", ["delete", "set-default"])
def test_private_view_of_other_user_cannot_be_changed(
    action: str, viewer_client: Client, stage: Stage, view: SavedView
) -> None:
    answer = viewer_client.post(change_address(stage, view), {"action": action})
    notices = select_one(parse_html(viewer_client.get(answer["Location"])), "#notices")
    assert text_of(notices) == "This view no longer exists."
    assert SavedView.objects.exists()
    assert not DefaultView.objects.exists()


def test_shared_view_is_deleted_only_by_owner_or_superuser(
    viewer_client: Client, stage: Stage, view: SavedView, viewer: User
) -> None:
    SavedView.objects.update(shared=True)
    assert viewer_client.post(change_address(stage, view), {"action": "delete"}).status_code == 403
    assert SavedView.objects.exists()
    page = parse_html(viewer_client.get(f"{factories.address(stage)}?q=x"))
    assert page.css('.saved-views [value="delete"]') == []
    viewer.is_superuser = True
    viewer.save()
    viewer_client.post(change_address(stage, view), {"action": "delete"})
    assert not SavedView.objects.exists()


def test_superuser_cannot_delete_private_view_of_other_user(view: SavedView, viewer: User) -> None:
    viewer.is_superuser = True
    viewer.save()
    with pytest.raises(saved_views.SavedViewError):
        saved_views.delete(viewer, view.pk)


def test_saved_view_post_to_hidden_stage_returns_404(
    operator_client: Client, stage: Stage, view: SavedView
) -> None:
    permissions.Grant.objects.all().delete()
    assert (
        operator_client.post(save_address(stage), {"name": "x", "query": FAILED}).status_code == 404
    )
    assert (
        operator_client.post(change_address(stage, view), {"action": "delete"}).status_code == 404
    )
    assert SavedView.objects.count() == 1


# --- The default view ---------------------------------------------------------------------------


@pytest.fixture
def default_view(view: SavedView, manager: User) -> SavedView:
    DefaultView.objects.create(user=manager, view=view)
    return view


def test_default_view_redirects_stage_page(save: Post, operator_client: Client) -> None:
    save(default="1")
    staging = factories.address(factories.stage("Staging"))
    answer = operator_client.get(staging)
    assert (answer.status_code, answer["Location"]) == (302, f"{staging}?{FAILED}")
    page = parse_html(operator_client.get(answer["Location"]))
    assert view_links(page) == ["All runs", "Failed (default)"]
    assert select_one(page, ".saved-views nav a:first-child").attributes["href"] == "?all=1"


@pytest.mark.parametrize(
    "query", ["all=1", "status=running", "q=", "page=2", "before=x", "utm_source=alert"]
)
def test_default_view_with_query_string_does_not_redirect(
    query: str, operator_client: Client, stage: Stage, default_view: SavedView
) -> None:
    assert operator_client.get(f"{factories.address(stage)}?{query}").status_code == 200


@pytest.mark.parametrize("pipeline_id", ["a/b", "a%b", "a%2Fb", "a?b=c", "a#b", "..", "ü b"])
def test_default_view_opens_stage_of_a_pipeline_with_an_unusual_id(
    pipeline_id: str, operator_client: Client, default_view: SavedView
) -> None:
    stage = factories.stage(parent=factories.pipeline(pipeline_id))
    answer = operator_client.get(factories.address(stage), follow=True)
    assert answer.status_code == 200
    assert answer.redirect_chain == [(f"{factories.address(stage)}?{FAILED}", 302)]


def test_default_view_can_be_replaced_and_cleared(
    operator_client: Client, stage: Stage, default_view: SavedView, manager: User
) -> None:
    other = SavedView.objects.create(owner=manager, name="Late", query="overdue=1")
    page = operator_client.post(
        change_address(stage, other), {"action": "set-default", "query": FAILED}
    )
    assert page["Location"].endswith(FAILED)
    assert operator_client.get(factories.address(stage))["Location"].endswith("?overdue=1")
    operator_client.post(change_address(stage, other), {"action": "clear-default"})
    assert operator_client.get(factories.address(stage)).status_code == 200


# --- Read-only mode -----------------------------------------------------------------------------


def test_saved_views_in_read_only_mode_cannot_change(
    operator_client: Client,
    stage: Stage,
    default_view: SavedView,
    settings: Settings,
    get_page: GetPage,
) -> None:
    settings.READ_ONLY = True
    assert (
        operator_client.post(save_address(stage), {"name": "x", "query": FAILED}).status_code == 403
    )
    for action in ("delete", "set-default", "clear-default"):
        assert (
            operator_client.post(
                change_address(stage, default_view), {"action": action}
            ).status_code
            == 403
        )
    assert DefaultView.objects.get().view == SavedView.objects.get()
    page = get_page(f"{factories.address(stage)}?q=x")
    assert view_links(page) == ["All runs", "Failed (default)"]
    assert page.css('.saved-views form, .saved-views [method="post"]') == []


def test_unknown_saved_view_action_changes_nothing(
    operator_client: Client, stage: Stage, default_view: SavedView, run: Run
) -> None:
    answer = operator_client.post(change_address(stage, default_view), {"action": "explode"})
    assert answer.status_code == 303
    assert DefaultView.objects.exists()
