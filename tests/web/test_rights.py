"""What is hidden is hidden on every page and stream; each row's abort control is its own stage's.

The person of these tests may abort in shop's Staging, look at its Production, and see nothing else.
Whatever they may not see is called “secret”.
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

from dashboard.models import Abort, CatalogueSweep, Grant, Pipeline, Project, Run, Stage
from tests.support import factories, flights
from tests.support.html import HTMX, one, parsed, words
from tests.support.live import PATIENCE, Live, token
from tests.support.stream import about, brisk, listening, messages

LEADS = "Only members of the group “leads” may abort runs here."
PAGES = ["now", "board", "pipeline", "stage", "run", "status"]


def restrict(member: User) -> None:
    """Give `member`, and nobody else, the rights of these tests."""
    Grant.objects.all().delete()
    shop = factories.project()
    factories.grant("abort", "on-call", member, project=shop, stage="Staging")
    factories.grant("see", "on-call", project=shop, stage="Production")
    factories.grant("abort", "leads")


@pytest.fixture
def member(viewer: User) -> User:
    restrict(viewer)
    return viewer


@pytest.fixture
def desk(client: Client, member: User) -> Client:
    client.force_login(member)
    return client


@pytest.fixture
def staging(db: None) -> Run:
    """A run in flight that the person may abort."""
    return factories.run(factories.stage("Staging"), "open-s", name="Open in staging")


@pytest.fixture
def production(db: None) -> Run:
    """A run in flight that the person may look at."""
    return factories.run(factories.stage("Production"), "open-p", name="Open in production")


@pytest.fixture
def beside(db: None) -> Run:
    """A run in a hidden stage of a pipeline that is not."""
    return factories.run(factories.stage("Development"), "secret-d", name="Secret in development")


@pytest.fixture
def elsewhere(db: None) -> Run:
    """A run in a hidden project."""
    pipeline = factories.pipeline("secret-pipeline", of=factories.project("secret-project"))
    stage = factories.stage("Staging", of=pipeline)
    return factories.run(stage, "secret-r", name="Secret run", status="approval_wait")


@pytest.fixture
def more_elsewhere(elsewhere: Run, manager: User) -> None:
    """Each thing that a page counts, lists or worries about, in a hidden place."""
    stage = elsewhere.stage
    factories.run(stage, "secret-f", name="Secret failure", status="failure")
    factories.abort(factories.run(stage, "secret-a", status="aborted"), manager, "concluded")
    factories.abort(elsewhere, manager)
    late = timezone.now() - timedelta(hours=2)
    pipeline = stage.pipeline
    factories.stage("Production", of=pipeline, promised_at=late, synced_at=late)
    factories.stage(
        "Development", of=pipeline, error="forbidden", error_message="Secret error", failures=3
    )
    factories.unlisted(pipeline.project, "Secret list")


def address(name: str, run: Run) -> str:
    return {
        "now": "/",
        "board": "/board/",
        "status": "/status/",
        "pipeline": factories.address(run.stage.pipeline),
        "stage": factories.address(run.stage),
        "run": factories.address(run),
    }[name]


def show(desk: Client, address: str, **headers: str) -> LexborHTMLParser:
    answer = desk.get(address, headers=headers)
    assert answer.status_code == 200, f"{address}: {answer.status_code}"
    return parsed(answer)


def row(html: LexborHTMLParser, run: Run) -> LexborHTMLParser:
    return one(html, f'[data-run="{run.run_id}"]')  # type: ignore[return-value]


def why(html: LexborHTMLParser) -> str:
    """Why the one disabled button that a piece of a page shows is disabled, as it is read out."""
    button = one(html, "[data-abort][disabled]")
    reason = words(one(html, f"#{button.attributes['aria-describedby']}"))
    assert button.attributes["title"] == reason
    return reason


# --- Pages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "refresh"])
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.usefixtures("more_elsewhere", "beside")
def test_no_page_names_what_is_hidden(
    name: str, headers: dict[str, str], desk: Client, staging: Run, production: Run
) -> None:
    answer = desk.get(address(name, staging), headers=headers)
    text = answer.content.decode()
    assert answer.status_code == 200
    assert "secret" not in text.lower()
    assert "Staging" in text


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.usefixtures("more_elsewhere")
def test_a_page_is_the_same_whether_hidden_places_exist_or_not(
    name: str, desk: Client, staging: Run
) -> None:
    def seen() -> tuple[str, ...]:
        html = show(desk, address(name, staging))
        live = one(html, "#live")
        # Moments pass, and the number of the latest change is everybody's.
        parts = [one(html, "title"), *html.css("h2, .count, [data-state], [data-empty], #as-of")]
        as_of = html.css_first("#as-of")
        shape = as_of.attributes.get("data-shape") if as_of else ""
        rows = [each.attributes["data-run"] for each in html.css("[data-run]")]
        told = (shape, live.attributes["data-refresh"], str(rows))
        return *(re.sub(r"\d\d:\d\d:\d\d", "", words(part)) for part in parts), *map(str, told)

    factories.worker()
    with_them = seen()
    CatalogueSweep.objects.all().delete()
    Stage.objects.filter(pipeline__slug="secret-pipeline").update(error="", promised_at=None)
    Project.objects.filter(slug="secret-project").update(gone_at=timezone.now())
    Run.objects.filter(run_id__startswith="secret").update(
        in_flight=False, concluded=True, status="success"
    )
    assert seen() == with_them


@pytest.mark.usefixtures("more_elsewhere", "beside")
def test_now_counts_only_what_may_be_seen(desk: Client, staging: Run, production: Run) -> None:
    html = show(desk, "/")
    assert words(one(html, "h2#in-flight")) == "In flight 2 in 2 stages"
    assert words(one(html, "h2#failed .count")) == "0"
    assert html.css("h2#aborted") == []
    assert one(html, "title").text() == "Now (2) · Release flows"


@pytest.mark.usefixtures("more_elsewhere", "beside")
def test_no_tab_is_led_by_what_is_hidden(desk: Client, staging: Run) -> None:
    titles = {page: one(show(desk, address(page, staging)), "title").text() for page in PAGES}
    assert not [title for title in titles.values() if "Failed" in title or "approval" in title]


@pytest.mark.parametrize("name", ["now", "board"])
@pytest.mark.usefixtures("more_elsewhere")
def test_what_is_late_or_cannot_be_read_in_hidden_places_worries_nobody(
    name: str, desk: Client, staging: Run
) -> None:
    line = one(show(desk, address(name, staging)), "#as-of")
    assert line.attributes["data-stale"] == "false"
    assert line.css("[data-elsewhere]") == []


def test_a_list_that_concerns_the_person_is_told_of(desk: Client, staging: Run) -> None:
    factories.unlisted(staging.stage.pipeline.project, "No access to shop.")
    factories.unlisted(None, "No access to the list.")
    factories.unlisted(factories.project("secret-project"), "Secret list")
    assert "2 lists of the catalogue can’t be read." in words(one(show(desk, "/"), "#as-of"))
    told = [words(one(each, "dd .said")) for each in show(desk, "/status/").css("[data-list]")]
    assert sorted(told) == ["No access to shop.", "No access to the list."]


@pytest.mark.usefixtures("more_elsewhere", "beside")
def test_the_status_page_is_about_the_stages_that_may_be_seen(
    desk: Client, staging: Run, production: Run
) -> None:
    factories.worker()
    html = show(desk, "/status/")
    assert words(one(html, "[data-state]")) == "All 2 stages are as fresh as promised."
    assert sum(int(words(kind.css("td")[0])) for kind in html.css("[data-kind]")) == 2
    assert len(html.css("tr[data-stage]")) == 2
    assert html.css("[data-cut]") == []


def test_a_cell_of_the_board_stays_in_its_column(
    desk: Client, beside: Run, staging: Run, production: Run
) -> None:
    html = show(desk, "/board/")
    cells = html.css(".board tbody tr:not(.project) td")
    assert [cell.attributes.get("data-stage") for cell in cells] == [None, "Staging", "Production"]
    assert words(cells[0]) == ""


def test_a_pipeline_without_stages_is_shown_where_its_project_is(
    desk: Client, member: User
) -> None:
    factories.grant("see", "on-call", project=factories.project("payments"))
    for project in ("shop", "payments", "secret-project"):
        factories.pipeline(f"new-in-{project}", of=factories.project(project))
    links = show(desk, "/board/").css(".board th a")
    assert [words(link) for link in links] == ["New-In-Payments", "New-In-Shop"]


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", ["now", "board", "status"])
def test_whoever_may_see_nothing_is_told_that(name: str, desk: Client, staging: Run) -> None:
    Grant.objects.all().delete()
    factories.worker()
    factories.swept()
    html = show(desk, address(name, staging))
    assert "that you may see" in words(one(html, "main"))
    assert html.css("[data-run], tr[data-stage], .board") == []


@pytest.mark.usefixtures("elsewhere")
def test_an_empty_page_speaks_of_what_may_be_seen_only(desk: Client, staging: Run) -> None:
    Run.objects.filter(pk=staging.pk).update(in_flight=False, concluded=True, status="success")
    html = show(desk, "/")
    told = words(one(html, "#nothing-in-flight"))
    assert told.startswith("Nothing that you may see is in flight. 1 stage looked at, ")
    assert words(one(html, "#nothing-failed")) == "No run that you may see failed in the last day."


# --- Addresses ----------------------------------------------------------------------------------


def same(answer: HttpResponse) -> tuple[int, str]:
    """An answer without what is made anew for each: tokens against forged requests."""
    text = re.sub(r'X-CSRFToken": "\w+"|name="csrfmiddlewaretoken" value="\w+"', "", answer.text)
    return answer.status_code, text


ASK: dict[str, Callable[[Client, Run], HttpResponse]] = {
    "pipeline": lambda desk, run: desk.get(factories.address(run.stage.pipeline)),
    "stage": lambda desk, run: desk.get(factories.address(run.stage)),
    "run": lambda desk, run: desk.get(factories.address(run)),
    "the run's refresh": lambda desk, run: desk.get(factories.address(run), headers=HTMX),
    "never seen": lambda desk, run: desk.get(factories.address(run.stage) + "runs/new/"),
    "the question": lambda desk, run: desk.get(factories.address(run, "abort")),
    "the press": lambda desk, run: desk.post(factories.address(run, "abort"), {"reason": "x"}),
    "by id": lambda desk, run: desk.get(f"/runs/{run.run_id}/?from=alert"),
    "pipeline's stream": lambda desk, run: desk.get(
        f"/live/?page=pipeline&key={run.stage.pipeline_id}"
    ),
    "stage's stream": lambda desk, run: desk.get(f"/live/?page=stage&key={run.stage_id}"),
    "run's stream": lambda desk, run: desk.get(f"/live/?page=run&key={run.pk}"),
}


@pytest.mark.parametrize("ask", ASK)
def test_a_hidden_project_is_answered_as_if_it_did_not_exist(
    ask: str, desk: Client, elsewhere: Run
) -> None:
    hidden = same(ASK[ask](desk, elsewhere))
    Project.objects.filter(slug="secret-project").delete()
    assert hidden == same(ASK[ask](desk, elsewhere))
    assert hidden[0] == 404


@pytest.mark.parametrize("ask", [ask for ask in ASK if "pipeline" not in ask])
def test_a_hidden_stage_of_a_pipeline_is_answered_as_if_it_did_not_exist(
    ask: str, desk: Client, beside: Run, staging: Run
) -> None:
    hidden = same(ASK[ask](desk, beside))
    Stage.objects.filter(pk=beside.stage_id).delete()
    assert hidden == same(ASK[ask](desk, beside))
    # By its id alone it is then looked for where this person may see: nobody answers that here.
    assert hidden[0] == (503 if ask == "by id" else 404)


@pytest.mark.parametrize("ask", ASK)
def test_each_of_these_answers_whoever_may_see(
    ask: str, client: Client, manager: User, elsewhere: Run
) -> None:
    client.force_login(manager)
    if ask in {"never seen", "the press"}:
        return  # ask Northflank: see below
    answer = ASK[ask](client, elsewhere)
    assert answer.status_code in {200, 302, 503}  # 503: no feed runs in these tests


def test_the_way_on_from_a_404_leads_to_no_hidden_place(desk: Client, beside: Run) -> None:
    html = parsed(desk.get(factories.address(beside)))
    onward = [link.attributes["href"] or "" for link in html.css(".onward a")]
    assert {desk.get(link).status_code for link in onward} == {200}


def test_of_two_runs_with_one_id_the_visible_one_is_found(
    desk: Client, staging: Run, elsewhere: Run
) -> None:
    newer = factories.run(elsewhere.stage, "open-s", created_at=timezone.now())
    assert newer.created_at > staging.created_at
    assert desk.get("/runs/open-s/")["Location"] == factories.address(staging)


def test_a_look_at_a_hidden_place_raises_no_interest(desk: Client, elsewhere: Run) -> None:
    desk.get(factories.address(elsewhere))
    desk.get(factories.address(elsewhere.stage))
    assert not Run.objects.exclude(watched_at=None).exists()
    assert not Stage.objects.exclude(watched_at=None).exists()


@pytest.mark.django_db(transaction=True)
def test_a_hidden_run_that_was_never_seen_is_not_asked_for(live: Live, viewer: User) -> None:
    live.sync()
    run = flights.in_flight(live)  # in Staging
    Grant.objects.all().delete()
    factories.grant("see", stage="Production")
    person = live.person("viewer")
    hidden = factories.address(run)
    run.delete()
    live.sandbox.requests.clear()
    assert person.get(hidden).status_code == 404
    assert not live.sandbox.requests
    Grant.objects.all().delete()
    factories.grant("see", stage="Staging")
    assert person.get(hidden).status_code == 200  # it could have been found
    assert live.sandbox.requests


# --- Aborting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "refresh"])
def test_of_two_rows_one_may_be_aborted_and_the_other_names_who_may(
    headers: dict[str, str], desk: Client, staging: Run, production: Run
) -> None:
    html = show(desk, "/", **headers)
    assert one(row(html, staging), "[data-abort]:not([disabled])")
    assert why(row(html, production)) == LEADS


@pytest.mark.parametrize("name", ["stage", "run"])
def test_a_stages_and_a_runs_own_page_go_by_that_stage(
    name: str, desk: Client, staging: Run, production: Run
) -> None:
    assert one(show(desk, address(name, staging)), "[data-abort]:not([disabled])")
    assert why(show(desk, address(name, production))) == LEADS


def test_the_reason_is_said_above_the_table_where_some_row_may_not_be_aborted(
    desk: Client, staging: Run, production: Run
) -> None:
    mixed = f"Where Abort is disabled: {LEADS}"
    assert words(one(show(desk, "/"), "[data-why-not]")) == mixed
    assert show(desk, factories.address(staging.stage)).css("[data-why-not]") == []
    said = one(show(desk, factories.address(production.stage)), "[data-why-not]")
    assert words(said) == LEADS
    staging.delete()
    assert words(one(show(desk, "/"), "[data-why-not]")) == LEADS


def test_where_reasons_differ_each_is_said_once(desk: Client, production: Run) -> None:
    payments = factories.project("payments")
    factories.grant("see", "on-call", project=payments)
    factories.grant("abort", "treasurers", project=payments)
    other = factories.run(factories.stage(of=factories.pipeline("ledger", of=payments)))
    html = show(desk, "/")
    assert words(one(html, "[data-why-not]")) == (
        f"Where Abort is disabled: {LEADS} "
        "Only members of “leads” or “treasurers” may abort runs here."
    )
    assert why(row(html, production)) == LEADS
    assert why(row(html, other)) == "Only members of “leads” or “treasurers” may abort runs here."


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "dialog"])
def test_the_question_is_answered_by_who_may(
    headers: dict[str, str], desk: Client, staging: Run, production: Run
) -> None:
    may = show(desk, factories.address(staging, "abort"), **headers)
    assert one(may, "form[action$='/abort/']")
    may_not = show(desk, factories.address(production, "abort"), **headers)
    assert may_not.css("form[action$='/abort/']") == []
    assert LEADS in words(one(may_not, "[data-why]"))


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "dialog"])
def test_a_press_without_the_right_is_refused_whatever_the_page_showed(
    headers: dict[str, str], desk: Client, production: Run
) -> None:
    answer = desk.post(factories.address(production, "abort"), {"reason": "x"}, headers=headers)
    assert answer.status_code == 403
    assert LEADS in answer.text
    assert not Abort.objects.exists()


def test_a_right_that_was_lost_since_the_page_was_shown_aborts_nothing(
    desk: Client, staging: Run, member: User
) -> None:
    assert one(show(desk, "/"), "[data-abort]:not([disabled])")
    Grant.objects.filter(right="abort", group__name="on-call").update(right="see")
    assert desk.post(factories.address(staging, "abort"), {"reason": "x"}).status_code == 403
    assert not Abort.objects.exists()


def test_a_press_on_a_hidden_run_writes_nothing(desk: Client, elsewhere: Run) -> None:
    assert desk.post(factories.address(elsewhere, "abort"), {"reason": "x"}).status_code == 404
    assert not Abort.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_over_http_the_right_of_one_stage_aborts_there_and_nowhere_else(
    live: Live, viewer: User
) -> None:
    ours = flights.in_flight(live)  # in Staging
    others = flights.in_flight(live, flights.SEARCH)
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
def test_more_rows_cost_a_person_with_few_rights_no_more_queries(
    name: str, desk: Client, staging: Run, production: Run
) -> None:
    def queries() -> int:
        cache.clear()
        with CaptureQueriesContext(connection) as seen:
            show(desk, address(name, staging))
        return len(seen)

    show(desk, address(name, staging))  # notes the interest, which it does once a while
    for status in ("failure", "success", "aborting"):
        factories.run(staging.stage, status=status)
    few = queries()
    for number in range(40):
        of = factories.pipeline(f"pipeline-{number % 8}", of=factories.project())
        stage = factories.stage(("Staging", "Production")[number % 2], of=of)
        factories.run(stage, status=("running", "failure", "success")[number % 3])
    assert queries() <= few


@pytest.mark.parametrize("name", PAGES)
def test_rights_cost_whoever_sees_all_two_queries_and_no_condition(
    name: str, client: Client, viewer: User, staging: Run
) -> None:
    def asked(user: User) -> list[str]:
        client.force_login(user)
        show(client, address(name, staging))  # notes the interest, which it does once a while
        cache.clear()
        with CaptureQueriesContext(connection) as seen:
            show(client, address(name, staging))
        # Times and keys differ from one to the next.
        return [re.sub(r"'[^']*'|\b\d+\b", "?", query["sql"]) for query in seen]

    root = User.objects.create_superuser("root", password="x")
    factories.grant("abort", "leads", viewer)
    rights = ("auth_group", "dashboard_grant")
    theirs = [sql for sql in asked(viewer) if not any(table in sql for table in rights)]
    assert theirs == asked(root)
    assert len(asked(viewer)) - len(theirs) == 2


def test_people_with_other_rights_and_the_same_verdict_share_the_rows(
    client: Client, viewer: User, staging: Run
) -> None:
    other = User.objects.create_user("other")
    factories.grant("abort", "on-call", viewer, stage="Staging")
    factories.grant("abort", "leads", other)
    client.force_login(viewer)
    show(client, "/")
    client.force_login(other)
    with CaptureQueriesContext(connection) as seen:
        assert one(show(client, "/"), "[data-abort]:not([disabled])")
    assert not [query for query in seen if '"dashboard_run"."run_id"' in query["sql"]]


# --- Streams ------------------------------------------------------------------------------------


@pytest.fixture
def ear(live: Live, viewer: User) -> httpx.Client:
    """The person of these tests before the real server."""
    restrict(viewer)
    return live.person("viewer")


over_http = pytest.mark.django_db(transaction=True)


@over_http
@pytest.mark.parametrize("name", ["now", "board", "pipeline"])
def test_a_stream_brings_nothing_of_hidden_places(
    name: str, live: Live, ear: httpx.Client, staging: Run, beside: Run, elsewhere: Run
) -> None:
    key = staging.stage.pipeline_id if name == "pipeline" else 0
    of_ours = {"board": f"stage-{staging.stage_id}"}.get(name, "run-open-s")
    heard = []
    with listening(ear, name, key) as stream:
        for run in (elsewhere, beside):
            factories.change(run, status="failure", concluded=True, in_flight=False)
        factories.run(elsewhere.stage, "secret-new", name="Secret new run")
        factories.change(staging, status="retrying")
        for message in stream:
            heard.append("\n".join(message.data))
            if of_ours in message.parts:
                break
    told = "".join(heard)
    assert "secret" not in told.lower()
    assert f"stage-{beside.stage_id}" not in told
    assert f"stage-{elsewhere.stage_id}" not in told


@over_http
@pytest.mark.parametrize("name", ["now", "board", "pipeline"])
def test_what_was_missed_is_brought_without_what_is_hidden(
    name: str, live: Live, ear: httpx.Client, staging: Run, beside: Run, elsewhere: Run
) -> None:
    key = staging.stage.pipeline_id if name == "pipeline" else 0
    with ear.stream("GET", f"/live/?page={name}&key={key}&since=0") as answer:
        opening = next(messages(answer))
    assert opening.parts.keys() & {"run-open-s", f"stage-{staging.stage_id}"}
    assert "secret" not in "\n".join(opening.data).lower()
    assert f"stage-{beside.stage_id}" not in opening.parts


@over_http
def test_counts_and_titles_of_a_stream_are_the_persons_own(
    live: Live, ear: httpx.Client, manager: User, staging: Run, elsewhere: Run
) -> None:
    factories.grant("see", "Release managers")
    said: list[str] = []
    for person in (ear, live.person("manager")):
        with person.stream("GET", "/live/?page=now") as answer:
            parts = next(messages(answer)).parts
        title = one(parts["title"], "span").attributes["data-title"]
        said += [title or "", words(one(parts["in-flight"], ".count"))]
    assert said == [
        "Now (1) · Release flows",
        "1",
        "Needs approval · Now (2) · Release flows",
        "2",
    ]


@over_http
def test_the_shape_a_stream_tells_is_the_pages_own(
    live: Live, ear: httpx.Client, staging: Run, elsewhere: Run
) -> None:
    for page in ("now", "board", "pipeline", "stage"):
        key = {"pipeline": staging.stage.pipeline_id, "stage": staging.stage_id}.get(page, 0)
        line = one(parsed(ear.get(address(page, staging))), "#as-of")
        with ear.stream("GET", f"/live/?page={page}&key={key}") as answer:
            told = one(next(messages(answer)).parts["as-of"], "p")
        assert told.attributes["data-shape"] == line.attributes["data-shape"], page


@over_http
def test_each_row_of_a_stream_goes_by_its_own_stage(
    live: Live, ear: httpx.Client, staging: Run, production: Run
) -> None:
    with listening(ear) as stream:
        for run in (staging, production):
            factories.change(run, status="retrying")
        may = about(stream, "run-open-s", "Retrying")
        with ear.stream("GET", "/live/?page=now&since=0") as answer:
            may_not = next(messages(answer)).parts["run-open-p"]
    assert may.css_first("[data-abort]:not([disabled])") is not None
    assert may_not.css_first("[data-abort][disabled]") is not None
    assert LEADS in may_not.text()


@over_http
def test_two_who_hear_one_change_each_hear_what_they_may(
    live: Live, ear: httpx.Client, manager: User, production: Run
) -> None:
    factories.grant("abort", "Release managers")
    with listening(ear) as ours, listening(live.person("manager")) as theirs:
        factories.change(production, status="retrying")
        assert about(ours, "run-open-p", "Retrying").css_first("[data-abort][disabled]")
        heard = about(theirs, "run-open-p", "Retrying")
        assert heard.css_first("[data-abort]:not([disabled])")


def ends(stream: Iterator[object]) -> None:
    """Read on until the stream has ended."""
    until = time.monotonic() + PATIENCE
    for _ in stream:
        assert time.monotonic() < until, "it went on and on"


def leave(member: User) -> None:
    member.groups.clear()


def lose_the_right(member: User) -> None:
    Grant.objects.filter(group__name="on-call", stage="Production").delete()


def be_given_one(member: User) -> None:
    factories.grant("see", project=factories.project("payments"))


def have_the_group_deleted(member: User) -> None:
    Group.objects.get(name="on-call").delete()


def be_closed(member: User) -> None:
    User.objects.filter(pk=member.pk).update(is_active=False)


def be_deleted(member: User) -> None:
    member.delete()


@over_http
@brisk
@pytest.mark.parametrize(
    "happen", [leave, lose_the_right, be_given_one, have_the_group_deleted, be_closed, be_deleted]
)
def test_a_stream_ends_soon_after_the_rights_of_who_listens_have_changed(
    happen: Callable[[User], None], live: Live, ear: httpx.Client, viewer: User, staging: Run
) -> None:
    with listening(ear) as stream:
        happen(viewer)
        ends(stream)


@over_http
@brisk
def test_a_stream_goes_on_while_only_other_peoples_rights_change(
    live: Live, ear: httpx.Client, manager: User, staging: Run
) -> None:
    factories.grant("see", "Release managers")
    with listening(ear) as ours, listening(live.person("manager")) as theirs:
        leave(manager)
        ends(theirs)
        factories.change(staging, status="retrying")
        about(ours, "run-open-s", "Retrying")


@over_http
@brisk
def test_the_stream_that_is_opened_next_goes_by_the_new_rights(
    live: Live, ear: httpx.Client, viewer: User, staging: Run, production: Run
) -> None:
    with listening(ear) as stream:
        lose_the_right(viewer)
        ends(stream)
    with ear.stream("GET", "/live/?page=now&since=0") as answer:
        parts = next(messages(answer)).parts
    assert "run-open-s" in parts
    assert "run-open-p" not in parts
    assert ear.get(f"/live/?page=run&key={production.pk}").status_code == 404


def test_a_pipelines_page_lists_the_visible_stages_alone(
    desk: Client, beside: Run, staging: Run
) -> None:
    html = show(desk, factories.address(Pipeline.objects.get(pk=staging.stage.pipeline_id)))
    assert [words(name) for name in html.css(".stages h2 a")] == ["Staging"]
