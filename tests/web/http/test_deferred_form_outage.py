"""Outages after the wait of a deferred form: the answer says whether it was saved."""

import contextlib
from collections.abc import Callable, Iterator

import httpx
import pytest
from django.contrib.auth.models import User, update_last_login
from django.db import connection, connections

from dashboard.asgi import application
from dashboard.web.http.database_outage import WriteOutcome, WriteTracker
from tests.support.html import parse_html, select_one, text_of
from tests.support.live import Live, run_in_each_thread, token
from tests.support.tcp_relay import database_proxy

PASSWORD = "correct horse battery staple"

on_postgres = pytest.mark.skipif(connection.vendor != "postgresql", reason="a server that ends")


@contextlib.contextmanager
def lost_commit_reply(statement: str) -> Iterator[None]:
    """Cut the connection of the thread that sends `statement` between its commit and the reply."""
    address = connection.settings_dict  # of the connections of all threads
    before = {name: address[name] for name in ("HOST", "PORT")}
    with database_proxy(f"postgres://{before['HOST']}:{before['PORT']}/") as (_, proxy):
        proxy.lose_commit_reply(statement)
        address |= {"HOST": "127.0.0.1", "PORT": proxy.port}
        run_in_each_thread(application.executor, connections.close_all)
        try:
            yield
        finally:
            address |= before
            run_in_each_thread(application.executor, connections.close_all)


def add_account(browser: httpx.Client) -> httpx.Response:
    form = {"username": "ben", "password": PASSWORD, "active": "1"}
    return browser.post("/people/new/", data=form | {"csrfmiddlewaretoken": token(browser)})


def change_own_password(browser: httpx.Client) -> httpx.Response:
    form = {"old_password": "ben", "new_password1": PASSWORD, "new_password2": PASSWORD}
    return browser.post("/account/", data=form | {"csrfmiddlewaretoken": token(browser)})


@on_postgres
@pytest.mark.parametrize(
    ("signed_in", "submit", "statement"),
    [
        ("root", add_account, 'INSERT INTO "auth_user"'),
        ("ben", change_own_password, 'UPDATE "auth_user" SET "password"'),
    ],
)
def test_form_may_have_been_saved_if_the_reply_to_its_commit_is_lost(
    live: Live, signed_in: str, submit: Callable[[httpx.Client], httpx.Response], statement: str
) -> None:
    User.objects.create_superuser(signed_in, password=signed_in)
    browser = live.sign_in(signed_in)
    with lost_commit_reply(statement):
        answer = submit(browser)
    assert answer.status_code == 503
    text = text_of(select_one(parse_html(answer), "main"))
    assert "Your request may or may not have been saved." in text
    assert User.objects.get(username="ben").check_password(PASSWORD)  # it was


def test_sign_in_that_fails_after_the_account_was_marked_has_saved_nothing(viewer: User) -> None:
    writes = WriteTracker()
    with connection.execute_wrapper(writes):
        update_last_login(User, viewer)
    assert viewer.last_login is not None
    assert writes.outcome is WriteOutcome.NOTHING
