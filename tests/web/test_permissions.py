"""Hidden data is hidden on every page and stream; abort buttons depend on the row's own stage.

The user of these tests may abort in shop's Staging, view its Production, and see nothing else.
The name of everything they may not see contains “secret”.
"""

import re
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Abort, CatalogSync, Grant, Pipeline, Project, Run, Stage
from tests.support import factories, live_runs
from tests.support.html import HTMX, parse_html, select_one, text_of
from tests.support.live import Live
from tests.support.stream import messages, next_part, open_stream

ABORT_DENIED_REASON = "Ask someone in “leads” to abort here."
PAGES = ["now", "board", "pipeline", "stage", "run", "health"]


def grant_member_permissions(member: User) -> None:
    """Give `member`, and nobody else, the permissions of these tests."""
    Grant.objects.all().delete()
    shop = factories.project()
    factories.grant("abort", "on-call", member, project=shop, stage="Staging")
    factories.grant("view", "on-call", project=shop, stage="Production")
    factories.grant("abort", "leads")


@pytest.fixture
def member(viewer: User) -> User:
    grant_member_permissions(viewer)
    return viewer


@pytest.fixture
def member_client(client: Client, member: User) -> Client:
    client.force_login(member)
    return client


@pytest.fixture
def staging_run(db: None) -> Run:
    """A run in flight that the user may abort."""
    return factories.run(factories.stage("Staging"), "open-s", name="Open in staging")


@pytest.fixture
def production_run(db: None) -> Run:
    """A run in flight that the user may view."""
    return factories.run(factories.stage("Production"), "open-p", name="Open in production")


@pytest.fixture
def hidden_stage_run(db: None) -> Run:
    """A run in a hidden stage of a visible pipeline."""
    return factories.run(factories.stage("Development"), "secret-d", name="Secret in development")


@pytest.fixture
def hidden_project_run(db: None) -> Run:
    """A run in a hidden project."""
    pipeline = factories.pipeline("secret-pipeline", parent=factories.project("secret-project"))
    stage = factories.stage("Staging", parent=pipeline)
    return factories.run(stage, "secret-r", name="Secret run", status="approval_wait")


@pytest.fixture
def hidden_project_content(hidden_project_run: Run, manager: User) -> None:
    """Everything that a page counts, lists or marks, in a hidden project."""
    stage = hidden_project_run.stage
    factories.run(stage, "secret-f", name="Secret failure", status="failure")
    factories.abort(factories.run(stage, "secret-a", status="aborted"), manager, "concluded")
    factories.abort(hidden_project_run, manager)
    two_hours_ago = timezone.now() - timedelta(hours=2)
    pipeline = stage.pipeline
    factories.stage(
        "Production", parent=pipeline, fresh_until=two_hours_ago, synced_at=two_hours_ago
    )
    factories.stage(
        "Development", parent=pipeline, error="forbidden", error_message="Secret error", failures=3
    )
    factories.failed_catalog_list(pipeline.project, "Secret list")


def address(name: str, run: Run) -> str:
    return {
        "now": "/",
        "board": "/board/",
        "health": "/health/",
        "pipeline": factories.address(run.stage.pipeline),
        "stage": factories.address(run.stage),
        "run": factories.address(run),
    }[name]


def get_member_page(member_client: Client, address: str, **headers: str) -> LexborHTMLParser:
    answer = member_client.get(address, headers=headers)
    assert answer.status_code == 200, f"{address}: {answer.status_code}"
    return parse_html(answer)


def run_row(html: LexborHTMLParser, run: Run) -> LexborHTMLParser:
    return select_one(html, f'[data-run="{run.run_id}"]')  # type: ignore[return-value]


def abort_denied_reason(html: LexborHTMLParser) -> str:
    """Return the accessible reason of the only disabled abort button."""
    button = select_one(html, "[data-abort][disabled]")
    reason = text_of(select_one(html, f"#{button.attributes['aria-describedby']}"))
    assert button.attributes["title"] == reason
    return reason


# --- Pages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "refresh"])
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.usefixtures("hidden_project_content", "hidden_stage_run")
def test_page_never_names_hidden_objects(
    name: str, headers: dict[str, str], member_client: Client, staging_run: Run, production_run: Run
) -> None:
    answer = member_client.get(address(name, staging_run), headers=headers)
    text = answer.content.decode()
    assert answer.status_code == 200
    assert "secret" not in text.lower()
    assert "Staging" in text


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.usefixtures("hidden_project_content")
def test_page_with_and_without_hidden_objects_is_identical(
    name: str, member_client: Client, staging_run: Run
) -> None:
    def visible_parts() -> tuple[str, ...]:
        html = get_member_page(member_client, address(name, staging_run))
        # Times pass, and the latest version is global.
        parts = [
            select_one(html, "title"),
            *html.css("h2, .count, [data-state], [data-empty], #data-age"),
        ]
        as_of = html.css_first("#data-age")
        structure_hash = as_of.attributes.get("data-structure") if as_of else ""
        rows = [row.attributes["data-run"] for row in html.css("[data-run]")]
        values = (structure_hash, str(rows))
        return *(re.sub(r"\d\d:\d\d:\d\d", "", text_of(part)) for part in parts), *map(str, values)

    factories.leader()
    with_hidden = visible_parts()
    CatalogSync.objects.all().delete()
    Stage.objects.filter(pipeline__slug="secret-pipeline").update(error="", fresh_until=None)
    Project.objects.filter(slug="secret-project").update(removed_at=timezone.now())
    Run.objects.filter(run_id__startswith="secret").update(
        in_flight=False, concluded=True, status="success"
    )
    assert visible_parts() == with_hidden


@pytest.mark.usefixtures("hidden_project_content", "hidden_stage_run")
def test_now_page_counts_only_visible_runs(
    member_client: Client, staging_run: Run, production_run: Run
) -> None:
    html = get_member_page(member_client, "/")
    assert text_of(select_one(html, "h2#in-flight")) == "In flight 2 in 2 stages"
    assert text_of(select_one(html, "h2#failed .count")) == "0"
    assert html.css("section:not([hidden]) > h2#aborted") == []
    assert select_one(html, "title").text() == "Now · Release flows"


@pytest.mark.usefixtures("hidden_project_content", "hidden_stage_run")
def test_tab_title_ignores_hidden_runs(member_client: Client, staging_run: Run) -> None:
    titles = {
        page: select_one(get_member_page(member_client, address(page, staging_run)), "title").text()
        for page in PAGES
    }
    assert not [title for title in titles.values() if "Failed" in title or "approval" in title]


@pytest.mark.parametrize("name", ["now", "board"])
@pytest.mark.usefixtures("hidden_project_content")
def test_data_age_ignores_hidden_stages(name: str, member_client: Client, staging_run: Run) -> None:
    line = select_one(get_member_page(member_client, address(name, staging_run)), "#data-age")
    assert line.attributes["data-stale"] == "false"
    assert line.css("[data-details-link]") == []


def test_unreadable_list_is_reported_only_for_visible_projects(
    member_client: Client, staging_run: Run
) -> None:
    factories.failed_catalog_list(staging_run.stage.pipeline.project, "No access to shop.")
    factories.failed_catalog_list(None, "No access to the list.")
    factories.failed_catalog_list(factories.project("secret-project"), "Secret list")
    assert "2 project or pipeline lists cannot be read." in text_of(
        select_one(get_member_page(member_client, "/"), "#data-age")
    )
    errors = [
        text_of(select_one(element, "dd .upstream-text"))
        for element in get_member_page(member_client, "/health/").css("[data-catalog-error]")
    ]
    assert sorted(errors) == ["No access to shop.", "No access to the list."]


@pytest.mark.usefixtures("hidden_project_content", "hidden_stage_run")
def test_health_page_covers_only_visible_stages(
    member_client: Client, staging_run: Run, production_run: Run
) -> None:
    factories.leader()
    html = get_member_page(member_client, "/health/")
    assert text_of(select_one(html, "[data-state]")) == "All 2 stages are up to date."
    assert sum(int(text_of(kind.css("td")[0])) for kind in html.css("[data-stage-name]")) == 2
    assert len(html.css("tr[data-stage]")) == 2
    assert html.css("[data-truncated]") == []


def test_board_with_hidden_stage_keeps_columns(
    member_client: Client, hidden_stage_run: Run, staging_run: Run, production_run: Run
) -> None:
    html = get_member_page(member_client, "/board/")
    cells = html.css(".board tbody tr:not(.group) td")
    assert [cell.attributes.get("data-stage") for cell in cells] == [None, "Staging", "Production"]
    assert text_of(cells[0]) == ""


def test_pipeline_without_stages_is_shown_if_project_is_visible(
    member_client: Client, member: User
) -> None:
    factories.grant("view", "on-call", project=factories.project("payments"))
    for project in ("shop", "payments", "secret-project"):
        factories.pipeline(f"new-in-{project}", parent=factories.project(project))
    links = get_member_page(member_client, "/board/").css(".board th a bdi")
    assert [text_of(link) for link in links] == ["New-In-Payments", "New-In-Shop"]


@pytest.mark.usefixtures("hidden_project_run")
@pytest.mark.parametrize("name", ["now", "board", "health"])
def test_page_without_any_permission_shows_no_visible_objects_message(
    name: str, member_client: Client, staging_run: Run
) -> None:
    Grant.objects.all().delete()
    factories.leader()
    factories.catalog_list()
    html = get_member_page(member_client, address(name, staging_run))
    assert re.search("that you (can|may) see", text_of(select_one(html, "main")))
    assert html.css("[data-run], tr[data-stage], .board") == []


@pytest.mark.usefixtures("hidden_project_run")
def test_empty_state_mentions_only_visible_objects(member_client: Client, staging_run: Run) -> None:
    Run.objects.filter(pk=staging_run.pk).update(in_flight=False, concluded=True, status="success")
    html = get_member_page(member_client, "/")
    assert (
        text_of(select_one(html, "#empty-in-flight"))
        == "No runs in flight. Only what you can see is listed."
    )
    assert (
        text_of(select_one(html, "#empty-failed"))
        == "No runs failed in the last day. Only what you can see is listed."
    )


# --- Addresses ----------------------------------------------------------------------------------


def comparable_response(answer: HttpResponse) -> tuple[int, str]:
    """A response without CSRF tokens, which differ each time."""
    text = re.sub(r'X-CSRFToken": "\w+"|name="csrfmiddlewaretoken" value="\w+"', "", answer.text)
    return answer.status_code, text


REQUESTS: dict[str, Callable[[Client, Run], HttpResponse]] = {
    "pipeline": lambda member_client, run: member_client.get(factories.address(run.stage.pipeline)),
    "stage": lambda member_client, run: member_client.get(factories.address(run.stage)),
    "run": lambda member_client, run: member_client.get(factories.address(run)),
    "run's refresh": lambda member_client, run: member_client.get(
        factories.address(run), headers=HTMX
    ),
    "unread run": lambda member_client, run: member_client.get(
        factories.address(run.stage) + "runs/new/"
    ),
    "confirmation": lambda member_client, run: member_client.get(factories.address(run, "abort")),
    "abort": lambda member_client, run: member_client.post(
        factories.address(run, "abort"), {"reason": "x"}
    ),
    "by id": lambda member_client, run: member_client.get(f"/runs/{run.run_id}/?from=alert"),
    "by id and location": lambda member_client, run: member_client.get(
        f"/runs/{run.run_id}/?project={run.stage.pipeline.project.slug}&stage={run.stage.name}"
    ),
    "pipeline's stream": lambda member_client, run: member_client.get(
        f"/live/?page=pipeline&key={run.stage.pipeline_id}"
    ),
    "stage's stream": lambda member_client, run: member_client.get(
        f"/live/?page=stage&key={run.stage_id}"
    ),
    "run's stream": lambda member_client, run: member_client.get(f"/live/?page=run&key={run.pk}"),
}


@pytest.mark.parametrize("send_request", REQUESTS)
def test_hidden_project_response_equals_missing_project_response(
    send_request: str, member_client: Client, hidden_project_run: Run
) -> None:
    hidden = comparable_response(REQUESTS[send_request](member_client, hidden_project_run))
    Project.objects.filter(slug="secret-project").delete()
    assert hidden == comparable_response(REQUESTS[send_request](member_client, hidden_project_run))
    assert hidden[0] == 404


@pytest.mark.parametrize(
    "send_request", [send_request for send_request in REQUESTS if "pipeline" not in send_request]
)
def test_hidden_stage_response_equals_missing_stage_response(
    send_request: str, member_client: Client, hidden_stage_run: Run, staging_run: Run
) -> None:
    hidden = comparable_response(REQUESTS[send_request](member_client, hidden_stage_run))
    Stage.objects.filter(pk=hidden_stage_run.stage_id).delete()
    assert hidden == comparable_response(REQUESTS[send_request](member_client, hidden_stage_run))
    # An id alone starts a search in visible stages.
    assert hidden[0] == (200 if send_request.startswith("by id") else 404)


@pytest.mark.parametrize("send_request", REQUESTS)
def test_permitted_user_gets_response_at_every_address(
    send_request: str, client: Client, manager: User, hidden_project_run: Run
) -> None:
    client.force_login(manager)
    if send_request in {"unread run", "abort"}:
        return  # these request Northflank: see below
    answer = REQUESTS[send_request](client, hidden_project_run)
    assert answer.status_code in {200, 302, 503}  # 503: no feed runs in these tests


def test_not_found_page_links_only_to_visible_pages(
    member_client: Client, hidden_stage_run: Run
) -> None:
    html = parse_html(member_client.get(factories.address(hidden_stage_run)))
    next_links = [link.attributes["href"] or "" for link in html.css(".next-links a")]
    assert {member_client.get(link).status_code for link in next_links} == {200}


def test_run_id_address_with_two_matches_redirects_to_visible_run(
    member_client: Client, staging_run: Run, hidden_project_run: Run
) -> None:
    newer = factories.run(hidden_project_run.stage, "open-s", created_at=timezone.now())
    assert newer.created_at > staging_run.created_at
    assert member_client.get("/runs/open-s/")["Location"] == factories.address(staging_run)


def test_run_id_address_with_hidden_location_is_the_same_as_with_a_missing_one(
    member_client: Client, staging_run: Run, hidden_project_run: Run
) -> None:
    Run.objects.filter(pk=hidden_project_run.pk).update(run_id=staging_run.run_id)
    address = "/runs/open-s/?project=secret-project&pipeline=secret-pipeline"
    hidden = member_client.get(address, follow=True)
    assert hidden.redirect_chain[0][0].startswith(factories.address(staging_run))
    Project.objects.filter(slug="secret-project").delete()
    missing = member_client.get(address, follow=True)
    assert hidden.redirect_chain == missing.redirect_chain
    notices = [select_one(parse_html(answer), "#notices").html for answer in (hidden, missing)]
    assert notices[0] == notices[1]


def test_request_for_hidden_page_does_not_mark_it_watched(
    member_client: Client, hidden_project_run: Run
) -> None:
    member_client.get(factories.address(hidden_project_run))
    member_client.get(factories.address(hidden_project_run.stage))
    assert not Run.objects.exclude(last_viewed_at=None).exists()
    assert not Stage.objects.exclude(last_viewed_at=None).exists()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_unsynced_run_of_hidden_stage_is_not_requested(live: Live, viewer: User) -> None:
    live.sync()
    run = live_runs.create_run_in_flight(live)  # in Staging
    Grant.objects.all().delete()
    factories.grant("view", stage="Production")
    client = live.sign_in("viewer")
    hidden = factories.address(run)
    run.delete()
    live.sandbox.requests.clear()
    assert client.get(hidden).status_code == 404
    assert not live.sandbox.requests
    Grant.objects.all().delete()
    factories.grant("view", stage="Staging")
    with live.ticking():
        assert client.get(hidden).status_code == 200  # a search would have found it
    assert live.sandbox.requests


# --- Aborting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "refresh"])
def test_abort_button_is_enabled_per_stage_and_denied_with_reason(
    headers: dict[str, str], member_client: Client, staging_run: Run, production_run: Run
) -> None:
    html = get_member_page(member_client, "/", **headers)
    assert select_one(run_row(html, staging_run), "[data-abort]:not([disabled])")
    assert abort_denied_reason(run_row(html, production_run)) == ABORT_DENIED_REASON


@pytest.mark.parametrize("name", ["stage", "run"])
def test_abort_button_on_stage_and_run_page_follows_stage_permission(
    name: str, member_client: Client, staging_run: Run, production_run: Run
) -> None:
    assert select_one(
        get_member_page(member_client, address(name, staging_run)), "[data-abort]:not([disabled])"
    )
    assert (
        abort_denied_reason(get_member_page(member_client, address(name, production_run)))
        == ABORT_DENIED_REASON
    )


def test_run_table_with_denied_rows_shows_denied_reason_once(
    member_client: Client, staging_run: Run, production_run: Run
) -> None:
    reason = f"You cannot abort some of these runs. {ABORT_DENIED_REASON}"
    assert (
        text_of(select_one(get_member_page(member_client, "/"), "[data-denied-reason]")) == reason
    )
    assert (
        get_member_page(member_client, factories.address(staging_run.stage)).css(
            "[data-denied-reason]"
        )
        == []
    )
    text = select_one(
        get_member_page(member_client, factories.address(production_run.stage)),
        "[data-denied-reason]",
    )
    assert text_of(text) == ABORT_DENIED_REASON
    staging_run.delete()
    assert (
        text_of(select_one(get_member_page(member_client, "/"), "[data-denied-reason]"))
        == ABORT_DENIED_REASON
    )


def test_run_table_with_different_denied_reasons_shows_each_once(
    member_client: Client, production_run: Run
) -> None:
    payments = factories.project("payments")
    factories.grant("view", "on-call", project=payments)
    factories.grant("abort", "treasurers", project=payments)
    other = factories.run(factories.stage(parent=factories.pipeline("ledger", parent=payments)))
    html = get_member_page(member_client, "/")
    assert text_of(select_one(html, "[data-denied-reason]")) == (
        "You cannot abort some of these runs. "
        f"Ask someone in “leads” or “treasurers” to abort here. {ABORT_DENIED_REASON}"
    )
    assert abort_denied_reason(run_row(html, production_run)) == ABORT_DENIED_REASON
    assert (
        abort_denied_reason(run_row(html, other))
        == "Ask someone in “leads” or “treasurers” to abort here."
    )


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "dialog"])
def test_abort_form_is_shown_only_with_abort_permission(
    headers: dict[str, str], member_client: Client, staging_run: Run, production_run: Run
) -> None:
    allowed = get_member_page(member_client, factories.address(staging_run, "abort"), **headers)
    assert select_one(allowed, "form[action$='/abort/']")
    denied = get_member_page(member_client, factories.address(production_run, "abort"), **headers)
    assert denied.css("form[action$='/abort/']") == []
    assert ABORT_DENIED_REASON in text_of(select_one(denied, "[data-reason]"))


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "dialog"])
def test_abort_without_permission_returns_403_and_records_nothing(
    headers: dict[str, str], member_client: Client, production_run: Run
) -> None:
    answer = member_client.post(
        factories.address(production_run, "abort"), {"reason": "x"}, headers=headers
    )
    assert answer.status_code == 403
    assert ABORT_DENIED_REASON in answer.text
    assert not Abort.objects.exists()


def test_abort_after_permission_was_revoked_returns_403(
    member_client: Client, staging_run: Run, member: User
) -> None:
    assert select_one(get_member_page(member_client, "/"), "[data-abort]:not([disabled])")
    Grant.objects.filter(action="abort", group__name="on-call").update(action="view")
    assert (
        member_client.post(factories.address(staging_run, "abort"), {"reason": "x"}).status_code
        == 403
    )
    assert not Abort.objects.exists()


def test_abort_of_hidden_run_returns_404_and_records_nothing(
    member_client: Client, hidden_project_run: Run
) -> None:
    assert (
        member_client.post(
            factories.address(hidden_project_run, "abort"), {"reason": "x"}
        ).status_code
        == 404
    )
    assert not Abort.objects.exists()


# --- Queries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.usefixtures("stopped_clock")
def test_page_with_more_rows_and_few_permissions_needs_no_more_queries(
    name: str, member_client: Client, staging_run: Run, production_run: Run
) -> None:
    def queries() -> int:
        cache.clear()
        with CaptureQueriesContext(connection) as captured:
            get_member_page(member_client, address(name, staging_run))
        return len(captured)

    get_member_page(
        member_client, address(name, staging_run)
    )  # marks the page watched, which it does once in a while
    for status in ("failure", "success", "aborting"):
        factories.run(staging_run.stage, status=status)
    query_count = queries()
    for number in range(40):
        pipeline = factories.pipeline(f"pipeline-{number % 8}", parent=factories.project())
        stage = factories.stage(("Staging", "Production")[number % 2], parent=pipeline)
        factories.run(stage, status=("running", "failure", "success")[number % 3])
    assert queries() <= query_count


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.usefixtures("stopped_clock")
def test_page_with_few_permissions_needs_the_queries_of_one_with_all(
    name: str, client: Client, viewer: User, staging_run: Run
) -> None:
    def page_queries(user: User) -> list[str]:
        client.force_login(user)
        get_member_page(
            client, address(name, staging_run)
        )  # marks the page watched, which it does once in a while
        cache.clear()
        with CaptureQueriesContext(connection) as captured:
            get_member_page(client, address(name, staging_run))
        # Times and keys differ.
        return [re.sub(r"'[^']*'|\b\d+\b", "?", query["sql"]) for query in captured]

    root = User.objects.create_superuser("root", password="x")
    factories.grant("abort", "leads", viewer)
    assert page_queries(viewer) == page_queries(root)


def test_run_rows_are_shared_by_users_with_same_permission_result(
    client: Client, viewer: User, staging_run: Run
) -> None:
    other = User.objects.create_user("other")
    factories.grant("abort", "on-call", viewer, stage="Staging")
    factories.grant("abort", "leads", other)
    client.force_login(viewer)
    get_member_page(client, "/")
    client.force_login(other)
    with CaptureQueriesContext(connection) as captured:
        assert select_one(get_member_page(client, "/"), "[data-abort]:not([disabled])")
    assert not [query for query in captured if '"dashboard_run"."name"' in query["sql"]]


# --- Streams ------------------------------------------------------------------------------------


@pytest.fixture
def member_http_client(live: Live, viewer: User) -> httpx.Client:
    """A client of these tests' user, at the real server."""
    grant_member_permissions(viewer)
    return live.sign_in("viewer")


over_http = pytest.mark.django_db(transaction=True)


@over_http
@pytest.mark.parametrize("name", ["now", "board", "pipeline"])
def test_stream_never_contains_hidden_objects(
    name: str,
    live: Live,
    member_http_client: httpx.Client,
    staging_run: Run,
    hidden_stage_run: Run,
    hidden_project_run: Run,
) -> None:
    key = staging_run.stage.pipeline_id if name == "pipeline" else 0
    visible_id = "run-open-s" if name == "now" else f"stage-{staging_run.stage_id}"
    texts = []
    with open_stream(member_http_client, name, key) as stream:
        for run in (hidden_project_run, hidden_stage_run):
            factories.change(run, status="failure", concluded=True, in_flight=False)
        factories.run(hidden_project_run.stage, "secret-new", name="Secret new run")
        factories.change(staging_run, status="retrying")
        for message in stream:
            texts.append("\n".join(message.data))
            if visible_id in message.parts:
                break
    text = "".join(texts)
    assert "secret" not in text.lower()
    assert f"stage-{hidden_stage_run.stage_id}" not in text
    assert f"stage-{hidden_project_run.stage_id}" not in text


@over_http
@pytest.mark.parametrize("name", ["now", "board", "pipeline"])
def test_stream_replay_excludes_hidden_objects(
    name: str,
    live: Live,
    member_http_client: httpx.Client,
    staging_run: Run,
    hidden_stage_run: Run,
    hidden_project_run: Run,
) -> None:
    key = staging_run.stage.pipeline_id if name == "pipeline" else 0
    with member_http_client.stream("GET", f"/live/?page={name}&key={key}&since=0") as answer:
        first_message = next(messages(answer))
    assert first_message.parts.keys() & {"run-open-s", f"stage-{staging_run.stage_id}"}
    assert "secret" not in "\n".join(first_message.data).lower()
    assert f"stage-{hidden_stage_run.stage_id}" not in first_message.parts


@over_http
def test_stream_counts_and_tab_title_follow_user_permissions(
    live: Live,
    member_http_client: httpx.Client,
    manager: User,
    staging_run: Run,
    hidden_project_run: Run,
) -> None:
    factories.grant("view", "Release managers")
    texts: list[str] = []
    for client in (member_http_client, live.sign_in("manager")):
        with client.stream("GET", "/live/?page=now") as answer:
            parts = next(messages(answer)).parts
        title = select_one(parts["tab-title"], "span").attributes["data-title"]
        texts += [title or "", text_of(select_one(parts["section-in-flight"], ".count"))]
    assert texts == [
        "Now · Release flows",
        "1",
        "Needs approval · Now · Release flows",
        "2",
    ]


@over_http
def test_stream_structure_hash_equals_page_structure_hash(
    live: Live, member_http_client: httpx.Client, staging_run: Run, hidden_project_run: Run
) -> None:
    for page in ("now", "board", "pipeline", "stage"):
        key = {"pipeline": staging_run.stage.pipeline_id, "stage": staging_run.stage_id}.get(
            page, 0
        )
        line = select_one(
            parse_html(member_http_client.get(address(page, staging_run))), "#data-age"
        )
        with member_http_client.stream("GET", f"/live/?page={page}&key={key}") as answer:
            element = select_one(next(messages(answer)).parts["data-age"], "p")
        assert element.attributes["data-structure"] == line.attributes["data-structure"], page


@over_http
def test_stream_renders_change_per_user_permission(
    live: Live, member_http_client: httpx.Client, manager: User, production_run: Run
) -> None:
    factories.grant("abort", "Release managers")
    with (
        open_stream(member_http_client) as member_stream,
        open_stream(live.sign_in("manager")) as manager_stream,
    ):
        factories.change(production_run, status="retrying")
        assert next_part(member_stream, "run-open-p", "Retrying").css_first(
            "[data-abort][disabled]"
        )
        part = next_part(manager_stream, "run-open-p", "Retrying")
        assert part.css_first("[data-abort]:not([disabled])")


def test_pipeline_page_lists_only_visible_stages(
    member_client: Client, hidden_stage_run: Run, staging_run: Run
) -> None:
    html = get_member_page(
        member_client, factories.address(Pipeline.objects.get(pk=staging_run.stage.pipeline_id))
    )
    assert [text_of(name) for name in html.css(".stages h2 a")] == ["Staging"]
