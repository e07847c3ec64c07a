"""Hidden data is hidden on every page and stream; abort buttons depend on the row's own stage.

The user of these tests may abort in shop's Staging, view its Production, and see nothing else.
Everything they may not see is called “secret”.
"""

import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import httpx
import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Abort, CatalogSync, Grant, Pipeline, Project, Run, Stage
from tests.support import factories, live_runs
from tests.support.html import HTMX, one, parse_html, words
from tests.support.live import PATIENCE, Live, token
from tests.support.stream import about, fast_polling, messages, open_stream

ABORT_DENIED_REASON = "Only members of the group “leads” can abort runs here."
PAGES = ["now", "board", "pipeline", "stage", "run", "status"]


def grant_member_permissions(member: User) -> None:
    """Give `member`, and nobody else, the rights of these tests."""
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
    """A run in flight that the person may abort."""
    return factories.run(factories.stage("Staging"), "open-s", name="Open in staging")


@pytest.fixture
def production_run(db: None) -> Run:
    """A run in flight that the person may look at."""
    return factories.run(factories.stage("Production"), "open-p", name="Open in production")


@pytest.fixture
def hidden_stage_run(db: None) -> Run:
    """A run in a hidden stage of a pipeline that is not."""
    return factories.run(factories.stage("Development"), "secret-d", name="Secret in development")


@pytest.fixture
def hidden_project_run(db: None) -> Run:
    """A run in a hidden project."""
    pipeline = factories.pipeline("secret-pipeline", of=factories.project("secret-project"))
    stage = factories.stage("Staging", of=pipeline)
    return factories.run(stage, "secret-r", name="Secret run", status="approval_wait")


@pytest.fixture
def hidden_project_content(hidden_project_run: Run, manager: User) -> None:
    """Each thing that a page counts, lists or worries about, in a hidden place."""
    stage = hidden_project_run.stage
    factories.run(stage, "secret-f", name="Secret failure", status="failure")
    factories.abort(factories.run(stage, "secret-a", status="aborted"), manager, "concluded")
    factories.abort(hidden_project_run, manager)
    late = timezone.now() - timedelta(hours=2)
    pipeline = stage.pipeline
    factories.stage("Production", of=pipeline, fresh_until=late, synced_at=late)
    factories.stage(
        "Development", of=pipeline, error="forbidden", error_message="Secret error", failures=3
    )
    factories.failed_catalog_sweep(pipeline.project, "Secret list")


def address(name: str, run: Run) -> str:
    return {
        "now": "/",
        "board": "/board/",
        "status": "/status/",
        "pipeline": factories.address(run.stage.pipeline),
        "stage": factories.address(run.stage),
        "run": factories.address(run),
    }[name]


def get_member_page(member_client: Client, address: str, **headers: str) -> LexborHTMLParser:
    answer = member_client.get(address, headers=headers)
    assert answer.status_code == 200, f"{address}: {answer.status_code}"
    return parse_html(answer)


def run_row(html: LexborHTMLParser, run: Run) -> LexborHTMLParser:
    return one(html, f'[data-run="{run.run_id}"]')  # type: ignore[return-value]


def abort_denied_reason(html: LexborHTMLParser) -> str:
    """Why the one disabled button that a piece of a page shows is disabled, as it is read out."""
    button = one(html, "[data-abort][disabled]")
    reason = words(one(html, f"#{button.attributes['aria-describedby']}"))
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
    def seen() -> tuple[str, ...]:
        html = get_member_page(member_client, address(name, staging_run))
        live = one(html, "#live")
        # Moments pass, and the number of the latest change is everybody's.
        parts = [one(html, "title"), *html.css("h2, .count, [data-state], [data-empty], #data-age")]
        as_of = html.css_first("#data-age")
        shape = as_of.attributes.get("data-structure") if as_of else ""
        rows = [each.attributes["data-run"] for each in html.css("[data-run]")]
        told = (shape, live.attributes["data-refresh"], str(rows))
        return *(re.sub(r"\d\d:\d\d:\d\d", "", words(part)) for part in parts), *map(str, told)

    factories.worker()
    with_them = seen()
    CatalogSync.objects.all().delete()
    Stage.objects.filter(pipeline__slug="secret-pipeline").update(error="", fresh_until=None)
    Project.objects.filter(slug="secret-project").update(removed_at=timezone.now())
    Run.objects.filter(run_id__startswith="secret").update(
        in_flight=False, concluded=True, status="success"
    )
    assert seen() == with_them


@pytest.mark.usefixtures("hidden_project_content", "hidden_stage_run")
def test_now_page_counts_only_visible_runs(
    member_client: Client, staging_run: Run, production_run: Run
) -> None:
    html = get_member_page(member_client, "/")
    assert words(one(html, "h2#in-flight")) == "In flight 2 in 2 stages"
    assert words(one(html, "h2#failed .count")) == "0"
    assert html.css("section:not([hidden]) > h2#aborted") == []
    assert one(html, "title").text() == "Now (2) · Release flows"


@pytest.mark.usefixtures("hidden_project_content", "hidden_stage_run")
def test_tab_title_ignores_hidden_runs(member_client: Client, staging_run: Run) -> None:
    titles = {
        page: one(get_member_page(member_client, address(page, staging_run)), "title").text()
        for page in PAGES
    }
    assert not [title for title in titles.values() if "Failed" in title or "approval" in title]


@pytest.mark.parametrize("name", ["now", "board"])
@pytest.mark.usefixtures("hidden_project_content")
def test_data_age_ignores_hidden_stages(name: str, member_client: Client, staging_run: Run) -> None:
    line = one(get_member_page(member_client, address(name, staging_run)), "#data-age")
    assert line.attributes["data-stale"] == "false"
    assert line.css("[data-details-link]") == []


def test_unreadable_list_is_reported_only_for_visible_projects(
    member_client: Client, staging_run: Run
) -> None:
    factories.failed_catalog_sweep(staging_run.stage.pipeline.project, "No access to shop.")
    factories.failed_catalog_sweep(None, "No access to the list.")
    factories.failed_catalog_sweep(factories.project("secret-project"), "Secret list")
    assert "2 lists of projects or pipelines could not be loaded." in words(
        one(get_member_page(member_client, "/"), "#data-age")
    )
    told = [
        words(one(each, "dd .upstream-text"))
        for each in get_member_page(member_client, "/status/").css("[data-catalog-error]")
    ]
    assert sorted(told) == ["No access to shop.", "No access to the list."]


@pytest.mark.usefixtures("hidden_project_content", "hidden_stage_run")
def test_status_page_covers_only_visible_stages(
    member_client: Client, staging_run: Run, production_run: Run
) -> None:
    factories.worker()
    html = get_member_page(member_client, "/status/")
    assert words(one(html, "[data-state]")) == "All 2 stages are up to date."
    assert sum(int(words(kind.css("td")[0])) for kind in html.css("[data-polling-class]")) == 2
    assert len(html.css("tr[data-stage]")) == 2
    assert html.css("[data-truncated]") == []


def test_board_with_hidden_stage_keeps_columns(
    member_client: Client, hidden_stage_run: Run, staging_run: Run, production_run: Run
) -> None:
    html = get_member_page(member_client, "/board/")
    cells = html.css(".board tbody tr:not(.project) td")
    assert [cell.attributes.get("data-stage") for cell in cells] == [None, "Staging", "Production"]
    assert words(cells[0]) == ""


def test_pipeline_without_stages_is_shown_if_project_is_visible(
    member_client: Client, member: User
) -> None:
    factories.grant("view", "on-call", project=factories.project("payments"))
    for project in ("shop", "payments", "secret-project"):
        factories.pipeline(f"new-in-{project}", of=factories.project(project))
    links = get_member_page(member_client, "/board/").css(".board th a")
    assert [words(link) for link in links] == ["New-In-Payments", "New-In-Shop"]


@pytest.mark.usefixtures("hidden_project_run")
@pytest.mark.parametrize("name", ["now", "board", "status"])
def test_page_without_any_permission_shows_no_visible_objects_message(
    name: str, member_client: Client, staging_run: Run
) -> None:
    Grant.objects.all().delete()
    factories.worker()
    factories.catalog_sweep()
    html = get_member_page(member_client, address(name, staging_run))
    assert re.search("that you (can|may) see", words(one(html, "main")))
    assert html.css("[data-run], tr[data-stage], .board") == []


@pytest.mark.usefixtures("hidden_project_run")
def test_empty_state_mentions_only_visible_objects(member_client: Client, staging_run: Run) -> None:
    Run.objects.filter(pk=staging_run.pk).update(in_flight=False, concluded=True, status="success")
    html = get_member_page(member_client, "/")
    told = words(one(html, "#empty-in-flight"))
    assert told.startswith("No runs in flight that you can see. 1 stage checked; data ")
    assert words(one(html, "#empty-failed")) == "No runs that you can see failed in the last day."


# --- Addresses ----------------------------------------------------------------------------------


def comparable_response(answer: HttpResponse) -> tuple[int, str]:
    """An answer without what is made anew for each: tokens against forged requests."""
    text = re.sub(r'X-CSRFToken": "\w+"|name="csrfmiddlewaretoken" value="\w+"', "", answer.text)
    return answer.status_code, text


REQUESTS: dict[str, Callable[[Client, Run], HttpResponse]] = {
    "pipeline": lambda member_client, run: member_client.get(factories.address(run.stage.pipeline)),
    "stage": lambda member_client, run: member_client.get(factories.address(run.stage)),
    "run": lambda member_client, run: member_client.get(factories.address(run)),
    "the run's refresh": lambda member_client, run: member_client.get(
        factories.address(run), headers=HTMX
    ),
    "never seen": lambda member_client, run: member_client.get(
        factories.address(run.stage) + "runs/new/"
    ),
    "the question": lambda member_client, run: member_client.get(factories.address(run, "abort")),
    "the press": lambda member_client, run: member_client.post(
        factories.address(run, "abort"), {"reason": "x"}
    ),
    "by id": lambda member_client, run: member_client.get(f"/runs/{run.run_id}/?from=alert"),
    "pipeline's stream": lambda member_client, run: member_client.get(
        f"/live/?page=pipeline&key={run.stage.pipeline_id}"
    ),
    "stage's stream": lambda member_client, run: member_client.get(
        f"/live/?page=stage&key={run.stage_id}"
    ),
    "run's stream": lambda member_client, run: member_client.get(f"/live/?page=run&key={run.pk}"),
}


@pytest.mark.parametrize("ask", REQUESTS)
def test_hidden_project_response_equals_missing_project_response(
    ask: str, member_client: Client, hidden_project_run: Run
) -> None:
    hidden = comparable_response(REQUESTS[ask](member_client, hidden_project_run))
    Project.objects.filter(slug="secret-project").delete()
    assert hidden == comparable_response(REQUESTS[ask](member_client, hidden_project_run))
    assert hidden[0] == 404


@pytest.mark.parametrize("ask", [ask for ask in REQUESTS if "pipeline" not in ask])
def test_hidden_stage_response_equals_missing_stage_response(
    ask: str, member_client: Client, hidden_stage_run: Run, staging_run: Run
) -> None:
    hidden = comparable_response(REQUESTS[ask](member_client, hidden_stage_run))
    Stage.objects.filter(pk=hidden_stage_run.stage_id).delete()
    assert hidden == comparable_response(REQUESTS[ask](member_client, hidden_stage_run))
    # By its id alone it is then looked for where this person may see: nobody answers that here.
    assert hidden[0] == (503 if ask == "by id" else 404)


@pytest.mark.parametrize("ask", REQUESTS)
def test_permitted_user_gets_response_at_every_address(
    ask: str, client: Client, manager: User, hidden_project_run: Run
) -> None:
    client.force_login(manager)
    if ask in {"never seen", "the press"}:
        return  # ask Northflank: see below
    answer = REQUESTS[ask](client, hidden_project_run)
    assert answer.status_code in {200, 302, 503}  # 503: no feed runs in these tests


def test_not_found_page_links_only_to_visible_pages(
    member_client: Client, hidden_stage_run: Run
) -> None:
    html = parse_html(member_client.get(factories.address(hidden_stage_run)))
    onward = [link.attributes["href"] or "" for link in html.css(".next-links a")]
    assert {member_client.get(link).status_code for link in onward} == {200}


def test_run_id_address_with_two_matches_redirects_to_visible_run(
    member_client: Client, staging_run: Run, hidden_project_run: Run
) -> None:
    newer = factories.run(hidden_project_run.stage, "open-s", created_at=timezone.now())
    assert newer.created_at > staging_run.created_at
    assert member_client.get("/runs/open-s/")["Location"] == factories.address(staging_run)


def test_request_for_hidden_page_does_not_mark_it_watched(
    member_client: Client, hidden_project_run: Run
) -> None:
    member_client.get(factories.address(hidden_project_run))
    member_client.get(factories.address(hidden_project_run.stage))
    assert not Run.objects.exclude(last_viewed_at=None).exists()
    assert not Stage.objects.exclude(last_viewed_at=None).exists()


@pytest.mark.django_db(transaction=True)
def test_unsynced_run_of_hidden_stage_is_not_requested(live: Live, viewer: User) -> None:
    live.sync()
    run = live_runs.in_flight(live)  # in Staging
    Grant.objects.all().delete()
    factories.grant("view", stage="Production")
    person = live.person("viewer")
    hidden = factories.address(run)
    run.delete()
    live.sandbox.requests.clear()
    assert person.get(hidden).status_code == 404
    assert not live.sandbox.requests
    Grant.objects.all().delete()
    factories.grant("view", stage="Staging")
    assert person.get(hidden).status_code == 200  # it could have been found
    assert live.sandbox.requests


# --- Aborting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "refresh"])
def test_abort_button_is_enabled_per_stage_and_denied_with_reason(
    headers: dict[str, str], member_client: Client, staging_run: Run, production_run: Run
) -> None:
    html = get_member_page(member_client, "/", **headers)
    assert one(run_row(html, staging_run), "[data-abort]:not([disabled])")
    assert abort_denied_reason(run_row(html, production_run)) == ABORT_DENIED_REASON


@pytest.mark.parametrize("name", ["stage", "run"])
def test_abort_button_on_stage_and_run_page_follows_stage_permission(
    name: str, member_client: Client, staging_run: Run, production_run: Run
) -> None:
    assert one(
        get_member_page(member_client, address(name, staging_run)), "[data-abort]:not([disabled])"
    )
    assert (
        abort_denied_reason(get_member_page(member_client, address(name, production_run)))
        == ABORT_DENIED_REASON
    )


def test_run_table_with_denied_rows_shows_denied_reason_once(
    member_client: Client, staging_run: Run, production_run: Run
) -> None:
    mixed = f"Abort is disabled for some runs: {ABORT_DENIED_REASON}"
    assert words(one(get_member_page(member_client, "/"), "[data-denied-reason]")) == mixed
    assert (
        get_member_page(member_client, factories.address(staging_run.stage)).css(
            "[data-denied-reason]"
        )
        == []
    )
    said = one(
        get_member_page(member_client, factories.address(production_run.stage)),
        "[data-denied-reason]",
    )
    assert words(said) == ABORT_DENIED_REASON
    staging_run.delete()
    assert (
        words(one(get_member_page(member_client, "/"), "[data-denied-reason]"))
        == ABORT_DENIED_REASON
    )


def test_run_table_with_different_denied_reasons_shows_each_once(
    member_client: Client, production_run: Run
) -> None:
    payments = factories.project("payments")
    factories.grant("view", "on-call", project=payments)
    factories.grant("abort", "treasurers", project=payments)
    other = factories.run(factories.stage(of=factories.pipeline("ledger", of=payments)))
    html = get_member_page(member_client, "/")
    assert words(one(html, "[data-denied-reason]")) == (
        f"Abort is disabled for some runs: {ABORT_DENIED_REASON} "
        "Only members of “leads” or “treasurers” can abort runs here."
    )
    assert abort_denied_reason(run_row(html, production_run)) == ABORT_DENIED_REASON
    assert (
        abort_denied_reason(run_row(html, other))
        == "Only members of “leads” or “treasurers” can abort runs here."
    )


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "dialog"])
def test_abort_form_is_shown_only_with_abort_permission(
    headers: dict[str, str], member_client: Client, staging_run: Run, production_run: Run
) -> None:
    may = get_member_page(member_client, factories.address(staging_run, "abort"), **headers)
    assert one(may, "form[action$='/abort/']")
    may_not = get_member_page(member_client, factories.address(production_run, "abort"), **headers)
    assert may_not.css("form[action$='/abort/']") == []
    assert ABORT_DENIED_REASON in words(one(may_not, "[data-reason]"))


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
    assert one(get_member_page(member_client, "/"), "[data-abort]:not([disabled])")
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


@pytest.mark.django_db(transaction=True)
def test_abort_permission_over_http_applies_to_its_stage_only(live: Live, viewer: User) -> None:
    ours = live_runs.in_flight(live)  # in Staging
    others = live_runs.in_flight(live, live_runs.SEARCH)
    factories.grant("abort", "on-call", viewer, stage="Staging")
    person = live.person("viewer")
    form = {"csrfmiddlewaretoken": token(person), "reason": "Stuck"}
    headers = {"Referer": live.base_url}
    answers = [
        person.post(factories.address(run, "abort"), data=form, headers=headers).status_code
        for run in (ours, others)
    ]
    assert answers == [302, 403]
    assert [abort.run_id for abort in Abort.objects.all()] == [ours.pk]


# --- What it costs ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_page_with_more_rows_and_few_permissions_needs_no_more_queries(
    name: str, member_client: Client, staging_run: Run, production_run: Run
) -> None:
    def queries() -> int:
        cache.clear()
        with CaptureQueriesContext(connection) as seen:
            get_member_page(member_client, address(name, staging_run))
        return len(seen)

    get_member_page(
        member_client, address(name, staging_run)
    )  # notes the interest, which it does once a while
    for status in ("failure", "success", "aborting"):
        factories.run(staging_run.stage, status=status)
    few = queries()
    for number in range(40):
        of = factories.pipeline(f"pipeline-{number % 8}", of=factories.project())
        stage = factories.stage(("Staging", "Production")[number % 2], of=of)
        factories.run(stage, status=("running", "failure", "success")[number % 3])
    assert queries() <= few


@pytest.mark.parametrize("name", PAGES)
def test_page_with_full_permissions_adds_only_two_permission_queries(
    name: str, client: Client, viewer: User, staging_run: Run
) -> None:
    def asked(user: User) -> list[str]:
        client.force_login(user)
        get_member_page(
            client, address(name, staging_run)
        )  # notes the interest, which it does once a while
        cache.clear()
        with CaptureQueriesContext(connection) as seen:
            get_member_page(client, address(name, staging_run))
        # Times and keys differ from one to the next.
        return [re.sub(r"'[^']*'|\b\d+\b", "?", query["sql"]) for query in seen]

    root = User.objects.create_superuser("root", password="x")
    factories.grant("abort", "leads", viewer)
    rights = ("auth_group", "dashboard_grant")
    theirs = [sql for sql in asked(viewer) if not any(table in sql for table in rights)]
    assert theirs == asked(root)
    assert len(asked(viewer)) - len(theirs) == 2


def test_run_rows_are_shared_by_users_with_same_permission_result(
    client: Client, viewer: User, staging_run: Run
) -> None:
    other = User.objects.create_user("other")
    factories.grant("abort", "on-call", viewer, stage="Staging")
    factories.grant("abort", "leads", other)
    client.force_login(viewer)
    get_member_page(client, "/")
    client.force_login(other)
    with CaptureQueriesContext(connection) as seen:
        assert one(get_member_page(client, "/"), "[data-abort]:not([disabled])")
    assert not [query for query in seen if '"dashboard_run"."name"' in query["sql"]]


# --- Streams ------------------------------------------------------------------------------------


@pytest.fixture
def member_http_client(live: Live, viewer: User) -> httpx.Client:
    """The person of these tests before the real server."""
    grant_member_permissions(viewer)
    return live.person("viewer")


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
    of_ours = {"board": f"stage-{staging_run.stage_id}"}.get(name, "run-open-s")
    heard = []
    with open_stream(member_http_client, name, key) as stream:
        for run in (hidden_project_run, hidden_stage_run):
            factories.change(run, status="failure", concluded=True, in_flight=False)
        factories.run(hidden_project_run.stage, "secret-new", name="Secret new run")
        factories.change(staging_run, status="retrying")
        for message in stream:
            heard.append("\n".join(message.data))
            if of_ours in message.parts:
                break
    told = "".join(heard)
    assert "secret" not in told.lower()
    assert f"stage-{hidden_stage_run.stage_id}" not in told
    assert f"stage-{hidden_project_run.stage_id}" not in told


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
        opening = next(messages(answer))
    assert opening.parts.keys() & {"run-open-s", f"stage-{staging_run.stage_id}"}
    assert "secret" not in "\n".join(opening.data).lower()
    assert f"stage-{hidden_stage_run.stage_id}" not in opening.parts


@over_http
def test_stream_counts_and_tab_title_follow_user_permissions(
    live: Live,
    member_http_client: httpx.Client,
    manager: User,
    staging_run: Run,
    hidden_project_run: Run,
) -> None:
    factories.grant("view", "Release managers")
    said: list[str] = []
    for person in (member_http_client, live.person("manager")):
        with person.stream("GET", "/live/?page=now") as answer:
            parts = next(messages(answer)).parts
        title = one(parts["tab-title"], "span").attributes["data-title"]
        said += [title or "", words(one(parts["in-flight"], ".count"))]
    assert said == [
        "Now (1) · Release flows",
        "1",
        "Needs approval · Now (2) · Release flows",
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
        line = one(parse_html(member_http_client.get(address(page, staging_run))), "#data-age")
        with member_http_client.stream("GET", f"/live/?page={page}&key={key}") as answer:
            told = one(next(messages(answer)).parts["data-age"], "p")
        assert told.attributes["data-structure"] == line.attributes["data-structure"], page


@over_http
def test_stream_abort_buttons_follow_stage_permission(
    live: Live, member_http_client: httpx.Client, staging_run: Run, production_run: Run
) -> None:
    with open_stream(member_http_client) as stream:
        for run in (staging_run, production_run):
            factories.change(run, status="retrying")
        may = about(stream, "run-open-s", "Retrying")
        with member_http_client.stream("GET", "/live/?page=now&since=0") as answer:
            may_not = next(messages(answer)).parts["run-open-p"]
    assert may.css_first("[data-abort]:not([disabled])") is not None
    assert may_not.css_first("[data-abort][disabled]") is not None
    assert ABORT_DENIED_REASON in may_not.text()


@over_http
def test_stream_renders_change_per_user_permission(
    live: Live, member_http_client: httpx.Client, manager: User, production_run: Run
) -> None:
    factories.grant("abort", "Release managers")
    with open_stream(member_http_client) as ours, open_stream(live.person("manager")) as theirs:
        factories.change(production_run, status="retrying")
        assert about(ours, "run-open-p", "Retrying").css_first("[data-abort][disabled]")
        heard = about(theirs, "run-open-p", "Retrying")
        assert heard.css_first("[data-abort]:not([disabled])")


def read_until_end(stream: Iterator[object]) -> None:
    """Read on until the stream has ended."""
    until = time.monotonic() + PATIENCE
    for _ in stream:
        assert time.monotonic() < until, "it went on and on"


def leave_groups(member: User) -> None:
    member.groups.clear()


def revoke_production_grant(member: User) -> None:
    Grant.objects.filter(group__name="on-call", stage="Production").delete()


def grant_payments(member: User) -> None:
    factories.grant("view", project=factories.project("payments"))


def delete_group(member: User) -> None:
    Group.objects.get(name="on-call").delete()


def deactivate_account(member: User) -> None:
    User.objects.filter(pk=member.pk).update(is_active=False)


def delete_account(member: User) -> None:
    member.delete()


@over_http
@fast_polling
@pytest.mark.parametrize(
    "happen",
    [
        leave_groups,
        revoke_production_grant,
        grant_payments,
        delete_group,
        deactivate_account,
        delete_account,
    ],
)
def test_stream_ends_when_permissions_of_its_user_change(
    happen: Callable[[User], None],
    live: Live,
    member_http_client: httpx.Client,
    viewer: User,
    staging_run: Run,
) -> None:
    with open_stream(member_http_client) as stream:
        happen(viewer)
        read_until_end(stream)


@over_http
@fast_polling
def test_stream_continues_when_permissions_of_other_user_change(
    live: Live, member_http_client: httpx.Client, manager: User, staging_run: Run
) -> None:
    factories.grant("view", "Release managers")
    with open_stream(member_http_client) as ours, open_stream(live.person("manager")) as theirs:
        leave_groups(manager)
        read_until_end(theirs)
        factories.change(staging_run, status="retrying")
        about(ours, "run-open-s", "Retrying")


@over_http
@fast_polling
def test_reopened_stream_follows_new_permissions(
    live: Live,
    member_http_client: httpx.Client,
    viewer: User,
    staging_run: Run,
    production_run: Run,
) -> None:
    with open_stream(member_http_client) as stream:
        revoke_production_grant(viewer)
        read_until_end(stream)
    with member_http_client.stream("GET", "/live/?page=now&since=0") as answer:
        parts = next(messages(answer)).parts
    assert "run-open-s" in parts
    assert "run-open-p" not in parts
    assert member_http_client.get(f"/live/?page=run&key={production_run.pk}").status_code == 404


def test_pipeline_page_lists_only_visible_stages(
    member_client: Client, hidden_stage_run: Run, staging_run: Run
) -> None:
    html = get_member_page(
        member_client, factories.address(Pipeline.objects.get(pk=staging_run.stage.pipeline_id))
    )
    assert [words(name) for name in html.css(".stages h2 a")] == ["Staging"]
