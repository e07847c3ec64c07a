"""My account: sessions and API tokens of the signed-in user, and nobody else's."""

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone
from selectolax.lexbor import LexborHTMLParser

from dashboard.accounts import demo, sessions
from dashboard.models import AccessEvent, ApiToken, Session
from dashboard.models.accounts.access import AccessKind
from dashboard.models.accounts.api_tokens import Scope
from tests.support.factories import HOSTILE
from tests.support.html import parse_html, select_one, text_of
from tests.support.sessions import age_last_use


def sign_in(user: User) -> Client:
    """Return a new browser in which `user` is signed in."""
    client = Client()
    client.force_login(user)
    return client


def key_of(client: Client) -> str:
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def session_of(client: Client) -> Session:
    return Session.objects.get(pk=key_of(client))


def open_account(client: Client) -> LexborHTMLParser:
    answer = client.get("/account/")
    assert answer.status_code == 200
    return parse_html(answer)


def end_url(client: Client) -> str:
    return f"/account/sessions/{session_of(client).public_id}/end/"


def ended() -> list[tuple[str, str]]:
    events = AccessEvent.objects.filter(kind=AccessKind.SESSION_ENDED)
    return list(events.values_list("username", "detail"))


# --- Sessions ------------------------------------------------------------------------------------


def test_page_lists_own_sessions_without_their_keys(viewer: User, manager: User) -> None:
    here, there, foreign = sign_in(viewer), sign_in(viewer), sign_in(manager)
    page = open_account(here)
    listed = {row.attributes["data-session"] for row in page.css("[data-session]")}
    assert listed == {session_of(here).public_id, session_of(there).public_id}
    assert "This session" in text_of(
        select_one(page, f'[data-session="{session_of(here).public_id}"]')
    )
    for client in (here, there, foreign):
        assert key_of(client) not in (page.html or "")


def test_session_of_earlier_password_is_not_listed(viewer: User) -> None:
    sign_in(viewer)
    viewer.set_password("another")
    viewer.save()
    assert len(open_account(sign_in(viewer)).css("[data-session]")) == 1


def test_ended_session_is_signed_out_and_recorded(viewer: User) -> None:
    here, there = sign_in(viewer), sign_in(viewer)
    answer = here.post(end_url(there), follow=True)
    assert "Session ended." in answer.content.decode()
    assert there.get("/").status_code == 302
    assert here.get("/").status_code == 200
    assert ended() == [("viewer", "Ended on My account: unknown browser at unknown address.")]


def test_other_sessions_end_together_and_are_recorded_once(viewer: User, manager: User) -> None:
    here, foreign = sign_in(viewer), sign_in(manager)
    others = [sign_in(viewer) for _ in range(3)]
    answer = here.post("/account/sessions/end-others/", follow=True)
    assert "3 other sessions ended." in answer.content.decode()
    assert [client.get("/").status_code for client in others] == [302] * 3
    assert [client.get("/").status_code for client in (here, foreign)] == [200] * 2
    assert ended() == [("viewer", "Ended on My account: all 3 others.")]


@pytest.mark.parametrize("name", ["foreign", "unknown", "ended"])
def test_session_of_somebody_else_or_of_nobody_returns_404(
    name: str, viewer: User, manager: User
) -> None:
    here, there, foreign = sign_in(viewer), sign_in(viewer), sign_in(manager)
    address = {
        "foreign": end_url(foreign),
        "unknown": "/account/sessions/0123456789abcdef/end/",
        "ended": end_url(there),
    }[name]
    if name == "ended":
        session_of(there).delete()
    assert here.post(address).status_code == 404
    assert foreign.get("/").status_code == 200
    assert ended() == []


def test_account_signed_in_by_another_service_sees_why_it_has_no_password(viewer: User) -> None:
    viewer.set_unusable_password()
    viewer.save()
    page = open_account(sign_in(viewer))
    assert "another service" in text_of(select_one(page, "[data-reason]"))
    assert page.css("[type=password]") == []


def test_demo_account_sees_that_its_password_is_fixed(viewer: User) -> None:
    viewer.set_unusable_password()
    viewer.save()
    viewer.groups.add(Group.objects.create(name=demo.GROUP))
    client = sign_in(viewer)
    assert "Demo accounts" in text_of(select_one(open_account(client), "[data-reason]"))
    form = {"old_password": "viewer", "new_password1": "x", "new_password2": "x"}
    assert client.post("/account/", form).status_code == 403


# --- What is recorded of a session ---------------------------------------------------------------


def test_use_is_recorded_once_a_minute(viewer: User) -> None:
    client = sign_in(viewer)
    past = age_last_use()
    client.get("/health/")
    used_at = session_of(client).last_used_at
    assert used_at > past
    client.get("/health/")
    assert session_of(client).last_used_at == used_at


def test_form_counts_as_use_and_refresh_does_not(viewer: User) -> None:
    client = sign_in(viewer)
    past = age_last_use()
    client.get("/", headers={"HX-Request": "true"})
    assert session_of(client).last_used_at == past
    client.post("/account/sessions/end-others/")
    assert session_of(client).last_used_at > past


def test_session_ends_at_its_maximum_age_however_often_it_is_used(
    viewer: User, settings: Any
) -> None:
    settings.SESSION_MAX_AGE = 3600
    client = Client()
    client.force_login(viewer)
    end = session_of(client).expire_date
    client.session.save()  # as a message does
    sessions.record_use(key_of(client), timezone.now() + timedelta(minutes=30))
    assert session_of(client).expire_date == end
    assert timedelta() < end - timezone.now() <= timedelta(hours=1)


# --- API tokens ----------------------------------------------------------------------------------


def create_token(user: User, name: str = "runbook", **times: Any) -> ApiToken:
    return ApiToken.create_token(user, name, Scope.READ, timezone.now(), **times)[0]


def test_page_lists_own_tokens_that_are_not_revoked(viewer: User, manager: User) -> None:
    own = create_token(viewer)
    old = create_token(viewer, "old", expires_at=timezone.now() - timedelta(days=1))
    create_token(manager)
    ApiToken.objects.filter(pk=create_token(viewer).pk).update(revoked_at=timezone.now())
    page = open_account(sign_in(viewer))
    listed = [row.attributes["data-token"] for row in page.css("[data-token]")]
    assert listed == [str(own.pk), str(old.pk)]
    assert "Expired" in text_of(select_one(page, f'[data-token="{old.pk}"]'))


def test_revoked_token_is_refused_and_recorded_once(viewer: User) -> None:
    client, token = sign_in(viewer), create_token(viewer)
    for _ in range(2):
        answer = client.post(f"/account/tokens/{token.pk}/revoke/", follow=True)
        assert "Token “runbook” revoked." in answer.content.decode()
    token.refresh_from_db()
    assert token.revoked_at is not None
    event = AccessEvent.objects.get(kind=AccessKind.TOKEN_REVOKED)
    assert (event.username, event.changed_by, event.token_name) == ("viewer", "viewer", "runbook")


def test_token_of_somebody_else_returns_404(viewer: User, manager: User) -> None:
    token = create_token(manager)
    assert sign_in(viewer).post(f"/account/tokens/{token.pk}/revoke/").status_code == 404
    token.refresh_from_db()
    assert token.revoked_at is None


# --- For all -------------------------------------------------------------------------------------


def actions(client: Client, user: User) -> list[str]:
    return [
        end_url(client),
        "/account/sessions/end-others/",
        f"/account/tokens/{create_token(user).pk}/revoke/",
    ]


def test_actions_reject_get_and_forms_of_other_sites(viewer: User) -> None:
    here = sign_in(viewer)
    there = sign_in(viewer)
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = here.cookies
    for address in actions(there, viewer):
        assert here.get(address).status_code == 405
        assert strict.post(address).status_code == 403
    assert there.get("/").status_code == 200
    assert not ApiToken.objects.exclude(revoked_at=None).exists()


def test_read_only_dashboard_lets_users_end_sessions_and_revoke_tokens(
    viewer: User, settings: Any
) -> None:
    settings.READ_ONLY = True
    here, there = sign_in(viewer), sign_in(viewer)
    for address in actions(there, viewer):
        assert here.post(address).status_code == 303
    assert there.get("/").status_code == 302
    assert not ApiToken.objects.filter(revoked_at=None).exists()
    page = open_account(here)
    assert "read-only" in text_of(select_one(page, "[data-reason]"))
    assert here.post("/account/", {"old_password": "viewer"}).status_code == 403


def test_hostile_texts_are_shown_as_text(viewer: User) -> None:
    create_token(viewer, HOSTILE[:100])
    client = sign_in(viewer)
    Session.objects.update(browser=HOSTILE[:60])
    page = open_account(client)
    assert HOSTILE[:20] in text_of(select_one(page, "[data-session]"))
    assert page.css("main script") == []
