"""Every address of the URLconf, requested as every kind of person and API token.

An address is asked for in two places: Staging of one project, where the member of one stage may
abort, and Production of another, of which all names contain HIDDEN.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from uuid import uuid4

from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.http import HttpResponse, HttpResponseBase
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, resolve
from django.utils import timezone

from dashboard.aborts.bulk_request import request_bulk_abort
from dashboard.aborts.request import AbortRequest
from dashboard.accounts import permissions
from dashboard.models import (
    ApiToken,
    ChangeCounter,
    Grant,
    NoticeRule,
    SavedView,
    Session,
    Stage,
)
from dashboard.models.accounts.api_tokens import Scope
from dashboard.models.severity import Severity
from dashboard.web.http.responses.deferred import Deferred
from dashboard.web.live import event_ids
from tests.support import factories
from tests.support.api import create_token_secret
from tests.support.deferred import finish
from tests.support.sessions import CSRF_TOKEN, session_key

HIDDEN = "Secret"  # no address contains it, so that a 404 does not repeat it
CHANNEL = "oncall"  # of a notice rule in each place
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def patterns(
    resolver: URLResolver | None = None, prefix: str = "", namespace: str = ""
) -> Iterator[tuple[str, str]]:
    """Return the name and the route of each address; of one without a name the route twice."""
    for pattern in (resolver or get_resolver()).url_patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield (f"{namespace}{pattern.name}" if pattern.name else route), route
        else:
            inner = f"{pattern.namespace}:" if pattern.namespace else namespace
            yield from patterns(pattern, route, inner)


@dataclass(frozen=True)
class Place:
    """What addresses name here: values of their parameters, their queries, and what is posted."""

    parameters: dict[str, object]
    keys: dict[str, object]  # the parameter `key`, by address
    queries: dict[str, Mapping[str, object]]  # by address
    forms: dict[str, dict[str, object]]  # by address; of others an empty form is posted

    def path(self, name: str, route: str) -> str:
        """Return the path and query of an address in this place."""
        values = {**self.parameters, "key": self.keys.get(name)}
        path = re.sub(r"<(?:\w+:)?(\w+)>", lambda m: quote(str(values[m[1]]), safe=""), route)
        query = urlencode(self.queries.get(name, {}))
        return f"/{path}?{query}" if query else f"/{path}"


@dataclass(frozen=True)
class World:
    """The two places, the browsers of people, and programs with tokens."""

    own: Place
    other: Place
    browsers: dict[str, Client]
    programs: dict[str, Client]


def create_world() -> World:
    """Create the two places with all that addresses name, people, and tokens."""
    Grant.objects.all().delete()
    people = _create_people()
    stage = factories.stage("Staging")
    factories.grant(
        "abort", "on-call", people["member"], project=stage.pipeline.project, stage="Staging"
    )
    vault = factories.project("vault", name=f"{HIDDEN} project")
    safe = factories.pipeline("safe", vault, name=f"{HIDDEN} pipeline")
    other_stage = factories.stage("Production", safe, error="x", error_message=HIDDEN, failures=1)
    places = _create_place(stage, people), _create_place(other_stage, people, HIDDEN)
    factories.search_texts()
    factories.day_sums()
    return World(
        *places,
        _browsers(people),
        _programs(people),
    )


def _create_people() -> dict[str, User]:
    permissions.ensure_default_group()
    names = ("stranger", "member", "viewer", "manager", "gone", "target")
    people = {name: User.objects.create_user(name) for name in names}
    for name in ("superuser", "glass"):
        people[name] = User.objects.create_superuser(name)
    factories.grant("view", "watchers", people["viewer"])
    # Of one of them it is taken away again, with the account.
    factories.grant("abort", permissions.RELEASE_MANAGERS, people["manager"], people["gone"])
    return people


def _create_place(stage: Stage, people: dict[str, User], word: str = "Open") -> Place:
    manager, name = people["manager"], f"{word} run"
    pipeline = stage.pipeline
    project = pipeline.project
    run_id = f"r-{project.slug}"
    factories.run(
        stage,
        run_id,
        name=name,
        overdue_severity=Severity.WARNING,  # so that it can be acknowledged
        removed_at=timezone.now(),  # so that it can be dismissed
    )
    aborted = factories.run(stage, status="aborted", name=name)
    factories.abort(aborted, manager, "concluded", reason=f"{word} reason", outcome="aborted")
    failed = factories.run(stage, status="failure", name=name)
    request = AbortRequest(manager, f"{word} reason")
    batch = request_bulk_abort([factories.run(stage, name=name).pk], request, uuid4())
    group = Group.objects.create(name=f"targets of {project.slug}")
    grant = factories.grant("view", group.name, project=project)
    view = SavedView.objects.create(owner=manager, name=f"{word} view", query="status=failure")
    token = ApiToken.create_token(manager, f"{word} token", Scope.ABORT, timezone.now())[0]
    keys: dict[str, object] = {
        "saved_view_update": view.pk,
        "token_revoke": token.pk,
        "account": people["target"].pk,
        "account_password": people["target"].pk,
        "account_token_revoke": manager.pk,
    }
    group_pages = ("group", "group_members", "group_delete", "grant_new", "grant_remove")
    keys |= dict.fromkeys(group_pages, group.pk)
    rule = NoticeRule.objects.create(
        channel=CHANNEL, project=project, events=["run_ended"], created_at=timezone.now()
    )
    keys |= dict.fromkeys(("notice_rule", "notice_test"), rule.pk)
    reason: dict[str, object] = {"reason": "Stuck"}
    return Place(
        parameters={
            "project_id": project.slug,
            "pipeline_id": pipeline.slug,
            "stage_id": stage.name.lower(),
            "run_id": run_id,
            "pk": batch.pk,
            "public_id": Session.objects.get(pk=session_key("manager")).public_id,
            "grant_key": grant.pk,
            "token_key": token.pk,
            "token": "0",
            "name": "guide",
            "picture": "now",
        },
        keys=keys,
        queries={
            "live": {"page": "stage", "key": stage.pk},
            "bulk_abort_new": {"stage": stage.pk},
            "run_search": {"project": project.slug},
            "search": {"q": "run"},
        },
        forms={
            "away": {"seen": event_ids.page_version(ChangeCounter.latest(), timezone.now())},
            "abort": reason,
            "api_abort": reason,
            "end_request": {"request": CHANNEL},
            "bulk_abort_new": {"run": failed.pk, "key": str(uuid4()), **reason},
            "saved_view_create": {"name": "Mine", "query": "status=failure"},
            "saved_view_update": {"action": "delete"},
            "star": {"star": f"pipeline-{pipeline.pk}"},
        },
    )


def _browsers(people: dict[str, User]) -> dict[str, Client]:
    browsers = {name: Client(enforce_csrf_checks=True) for name in ("nobody", *people)}
    for name, user in people.items():
        browsers[name].force_login(user)
    User.objects.filter(username="gone").update(is_active=False)
    return browsers


def _programs(people: dict[str, User]) -> dict[str, Client]:
    past = timezone.now() - timedelta(hours=1)
    secrets = {
        "read": create_token_secret(people["manager"], Scope.READ),
        "abort": create_token_secret(people["manager"]),
        "member's": create_token_secret(people["member"]),
        "stranger's": create_token_secret(people["stranger"]),
        "gone's": create_token_secret(people["gone"]),
        "revoked": create_token_secret(people["superuser"], name="revoked"),
        "expired": create_token_secret(people["superuser"], expires_at=past),
        "forged": "rfd_" + "x" * 43,
    }
    ApiToken.objects.filter(name="revoked").update(revoked_at=past)
    return {
        name: Client(enforce_csrf_checks=True, headers={"Authorization": f"Bearer {secret}"})
        for name, secret in secrets.items()
    }


@dataclass(frozen=True)
class Result:
    """What a request got.

    `outcome` is a status, or “sent” to Northflank, or the page that it leads to. `writes` are the
    tables that it wrote, but for what requests leave behind in any case.
    """

    outcome: str
    writes: frozenset[str]
    text: str


def request(
    client: Client, method: str, path: str, form: dict[str, object] | None = None, *, csrf: bool
) -> Result:
    """Send a request with or without a CSRF token; what it has changed is undone.

    No cache may keep the answer.
    """
    cookies = SimpleCookie(client.cookies)
    client.cookies["csrftoken"] = CSRF_TOKEN
    headers = {"X-CSRFToken": CSRF_TOKEN} if csrf else {}
    content: dict[str, Any] = {"data": form or {}} if method == "POST" else {}
    if content and path.startswith("/api/"):
        content["content_type"] = "application/json"
    writes: set[str] = set()

    def record_write(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if (match := _WRITE.match(sql)) and not _HOUSEKEEPING.match(sql):
            writes.add(match[1])
        return execute(sql, params, many, context)

    try:
        with transaction.atomic(), connection.execute_wrapper(record_write):
            answer: Any = getattr(client, method.lower())(path, headers=headers, **content)
            transaction.set_rollback(True)
    finally:
        client.cookies = cookies
    assert "no-store" in answer["Cache-Control"], f"{method} {path} may be kept"
    if path.startswith("/search/"):
        answer = finish(answer)
    return Result(_outcome(answer), frozenset(writes), _text(answer))


_WRITE = re.compile(r'(?:INSERT INTO|UPDATE|DELETE FROM) "(\w+)"')
# The use of sessions and tokens, refused attempts, records of both, and what is watched.
_HOUSEKEEPING = re.compile(
    r'(INSERT INTO|UPDATE) "dashboard_(session|failurecounter|accessevent|webhookstats)"'
    r'|UPDATE "dashboard_apitoken" SET ("last_used_at"|"window)'
    r'|UPDATE "dashboard_(run|stage|pipeline)" SET .*"(last_viewed_at|next_sync_at)"'
)


def _outcome(answer: HttpResponseBase) -> str:
    if isinstance(answer, Deferred):
        return "sent"
    if answer.status_code not in {301, 302, 303}:
        return str(answer.status_code)
    target = urlsplit(answer["Location"])
    assert not target.netloc, f"to another site: {answer['Location']}"
    match = resolve(target.path)
    return match.url_name or match.route


def _text(answer: HttpResponseBase) -> str:
    """Return the headers and the text of an answer."""
    headers = "\n".join(f"{name}: {value}" for name, value in answer.items())
    if isinstance(answer, HttpResponse):
        return headers + answer.content.decode(errors="replace")  # or a picture
    if getattr(answer, "is_async", False):  # a stream of changes
        return headers
    return headers + b"".join(answer).decode()
