"""Browsers of signed-in users, and pages parsed for selectors."""

from collections.abc import Iterator

import pytest
import time_machine
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Abort, Grant, Pipeline, Run, Stage
from dashboard.models.accounts.grants import Action
from tests.support import factories
from tests.support.html import GetPage, parse_html


@pytest.fixture
def operator_client(client: Client, manager: User) -> Client:
    """The browser of a user who may abort."""
    client.force_login(manager)
    return client


@pytest.fixture
def viewer_client(client: Client, viewer: User) -> Client:
    """The browser of a user who may only view."""
    client.force_login(viewer)
    return client


@pytest.fixture
def superuser(db: None) -> User:
    return User.objects.create_superuser("root", password="x")


@pytest.fixture
def admin_client(client: Client, superuser: User) -> Client:
    """The browser of a superuser."""
    client.force_login(superuser)
    return client


@pytest.fixture
def get_page(operator_client: Client) -> GetPage:
    """Return a function that opens a URL as a manager and parses the page."""

    def open_page(address: str, **headers: str) -> LexborHTMLParser:
        answer = operator_client.get(address, headers=headers)
        assert answer.status_code == 200, f"{address}: {answer.status_code}"
        return parse_html(answer)

    return open_page


@pytest.fixture
def stopped_clock() -> Iterator[None]:
    """Stop the clock: a page records once in ten seconds that it is viewed."""
    with time_machine.travel(timezone.now(), tick=False):
        yield


@pytest.fixture
def pipeline(db: None) -> Pipeline:
    return factories.pipeline()


@pytest.fixture
def stage(pipeline: Pipeline) -> Stage:
    return factories.stage(parent=pipeline)


@pytest.fixture
def run(stage: Stage) -> Run:
    """A run in flight."""
    return factories.run(stage, "r-1", name="Nightly")


@pytest.fixture
def aborts_in_two_projects(manager: User, viewer: User) -> dict[str, Abort]:
    """An abort in each of two projects, and a viewer with a grant for staging in one of them."""
    Grant.objects.filter(group=None).delete()
    group = Group.objects.create(name="Shop people")
    viewer.groups.add(group)
    shop = factories.project("shop")
    Grant.objects.create(group=group, project=shop, stage="Staging", action=Action.VIEW)
    return {
        f"{project} {stage}": factories.abort_of_new_run(
            manager,
            factories.stage(stage, parent=factories.pipeline(parent=factories.project(project))),
            reason=f"{project} {stage}",
        )
        for project in ("shop", "payments")
        for stage in ("Staging", "Production")
    }
