"""The abort log: every abort with its details, filters and pages."""

from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from selectolax.lexbor import LexborHTMLParser, LexborNode

from dashboard.aborts import categories
from dashboard.models import Abort, Grant, Run
from dashboard.models.abort_lifecycle import AbortState, EventType
from tests.support import factories
from tests.support.abort_kinds import FIELDS_BY_KIND, NOON
from tests.support.bulk_aborts import bulk_abort_of
from tests.support.factories import HOSTILE
from tests.support.html import HTMX, GetPage, live_tag, parse_html, select_one, text_of
from tests.support.live_runs import append_only_disabled


def abort_keys(html: LexborHTMLParser) -> list[int]:
    """The keys of the aborts on a page, in order."""
    return [int((row.id or "").removeprefix("abort-")) for row in html.css("[data-abort-row]")]


def matching_keys(get_page: GetPage, query: str) -> list[int]:
    return abort_keys(get_page(f"/aborts/?{query}"))


def notices(html: LexborHTMLParser) -> list[str]:
    return [text_of(notice) for notice in html.css("#live > .inline-notice")]


def only_row(html: LexborHTMLParser) -> LexborNode:
    return select_one(html, "[data-abort-row]")


# --- Rendered once -------------------------------------------------------------------------------


def queries(get_page: GetPage, address: str) -> list[str]:
    """Open a page; return the queries that it took."""
    with CaptureQueriesContext(connection) as captured:
        get_page(address)
    return [query["sql"] for query in captured.captured_queries]


def test_unchanged_aborts_are_loaded_once(get_page: GetPage, manager: User) -> None:
    for _ in range(3):
        factories.abort_of_new_run(manager)
    loading = "dashboard_abortevent"
    assert any(loading in sql for sql in queries(get_page, "/aborts/"))
    assert not any(loading in sql for sql in queries(get_page, "/aborts/"))
    assert len(abort_keys(get_page("/aborts/"))) == 3


def test_abort_row_follows_change_of_its_run_alone(get_page: GetPage, manager: User) -> None:
    changed, unchanged = factories.abort_of_new_run(manager), factories.abort_of_new_run(manager)
    get_page("/aborts/")
    changed.apply_run_status("aborted", concluded=True, at=timezone.now())
    factories.change(changed.run, status="aborted", concluded=True, in_flight=False)
    html = get_page("/aborts/")
    states = {row.id: row.attributes["data-state"] for row in html.css("[data-abort-row]")}
    assert states == {f"abort-{changed.pk}": "aborted", f"abort-{unchanged.pk}": "under_way"}


# --- Rows ----------------------------------------------------------------------------------------


def test_abort_row_shows_user_client_address_and_reason(get_page: GetPage, manager: User) -> None:
    abort = factories.abort_of_new_run(
        manager, reason="Stuck since noon", client_address="192.0.2.7"
    )
    row = select_one(get_page("/aborts/"), f"#abort-{abort.pk}")
    assert text_of(select_one(row, ".requester")) == "manager via dashboard from 192.0.2.7"
    assert text_of(select_one(row, "summary q")) == "Stuck since noon"
    assert (
        select_one(row, ".requested time").attributes["datetime"] == abort.requested_at.isoformat()
    )


@pytest.mark.parametrize(
    ("via", "token", "text"),
    [
        ("page", "", "via dashboard"),
        ("api", "PagerDuty", "via API, token “PagerDuty”"),
        ("api", "", "via API"),
        ("command", "", "via command line"),
    ],
)
def test_abort_row_shows_origin_page_api_or_command(
    via: str, token: str, text: str, get_page: GetPage, manager: User
) -> None:
    factories.abort_of_new_run(manager, via=via, token_name=token)
    assert text_of(select_one(only_row(get_page("/aborts/")), ".requester bdi.muted")) == text


def test_abort_row_links_to_run_and_names_stage(get_page: GetPage, manager: User) -> None:
    abort = factories.abort_of_new_run(manager, run_name="Nightly")
    row = only_row(get_page("/aborts/"))
    assert select_one(row, "a.title").attributes["href"] == factories.address(abort.run)
    assert text_of(select_one(row, "a.title")) == "Nightly"
    assert text_of(select_one(row, ".location-path")) == "Shop / Checkout / Production"


def test_abort_row_lists_timeline_events(get_page: GetPage, manager: User) -> None:
    abort = factories.abort_of_new_run(manager, reason="Stuck")
    abort.add_event(EventType.REQUESTED, NOON)
    abort.add_event(EventType.SENT, NOON)
    lines = select_one(only_row(get_page("/aborts/")), "details").css(".abort-timeline li")
    assert [text_of(select_one(line, "span")) for line in lines] == [
        "Requested by manager: “Stuck”.",
        "Sent to Northflank.",
    ]


def test_abort_row_when_refused_shows_northflank_answer_and_error_id(
    get_page: GetPage, manager: User
) -> None:
    factories.abort_of_new_run(manager, **FIELDS_BY_KIND["refused"], error_id="err-7")
    facts = [text_of(fact) for fact in only_row(get_page("/aborts/")).css(".facts dd")]
    assert facts == ["409: No.", "err-7"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"response_status": 409}, "Northflank’s response"),
        ({"response_status": None, "sent_at": None}, "Error"),
    ],
)
@pytest.mark.parametrize("page", ["audit", "run"])
def test_abort_facts_without_northflank_response_label_our_error(
    page: str, fields: dict[str, Any], name: str, get_page: GetPage, manager: User
) -> None:
    abort = factories.abort_of_new_run(manager, **FIELDS_BY_KIND["refused"] | fields)
    html = get_page("/aborts/" if page == "audit" else factories.address(abort.run))
    selector = "[data-abort-row]" if page == "audit" else ".abort-details"
    names = {text_of(fact) for fact in html.css(f"{selector} .facts dt")}
    assert names & {"Northflank’s response", "Error"} == {name}


def test_aborts_page_with_hostile_text_escapes_it(get_page: GetPage, manager: User) -> None:
    stage = factories.stage(
        parent=factories.pipeline(
            "c&d", parent=factories.project("a/<b>", name=HOSTILE), name=HOSTILE
        )
    )
    factories.abort_of_new_run(
        manager,
        stage,
        **FIELDS_BY_KIND["refused"] | {"reason": HOSTILE, "response": HOSTILE},
        token_name=HOSTILE,
        via="api",
        run_name=HOSTILE,
        error_id=HOSTILE,
    )
    for headers in ({}, HTMX):
        html = get_page(f"/aborts/?text={quote(HOSTILE[:100])}", **headers)
        assert html.css("#hostile, script:not([src]):not(#time-texts), x") == []
        assert text_of(select_one(only_row(html), "summary q")) == " ".join(HOSTILE.split())


# --- Filters -------------------------------------------------------------------------------------


@pytest.fixture
def abort_of_each_kind(manager: User) -> dict[str, int]:
    return {
        name: factories.abort_of_new_run(manager, **fields).pk
        for name, fields in FIELDS_BY_KIND.items()
    }


def test_each_kind_fixture_covers_all_kinds_and_states() -> None:
    assert FIELDS_BY_KIND.keys() == categories.CATEGORIES.keys()
    assert {fields["state"] for fields in FIELDS_BY_KIND.values()} | {AbortState.REQUESTED} == {
        *AbortState
    }


@pytest.mark.parametrize("kind", FIELDS_BY_KIND)
def test_outcome_filter_lists_only_aborts_of_that_outcome(
    kind: str, get_page: GetPage, abort_of_each_kind: dict[str, int]
) -> None:
    html = get_page(f"/aborts/?state={kind}")
    assert abort_keys(html) == [abort_of_each_kind[kind]]
    assert only_row(html).attributes["data-state"] == kind
    assert text_of(select_one(only_row(html), "[data-badge]")) == str(
        categories.CATEGORIES[kind].label
    )
    assert select_one(html, "#state option[selected]").attributes["value"] == kind


@pytest.mark.parametrize("text", ["manager", "MANA", "nage"])
def test_user_filter_matches_part_of_username(
    text: str, get_page: GetPage, manager: User, viewer: User
) -> None:
    abort = factories.abort_of_new_run(manager)
    factories.abort_of_new_run(viewer)
    assert matching_keys(get_page, f"username={text}") == [abort.pk]


@pytest.mark.parametrize("text", ["nightly", "Run-77", "stuck"])
def test_text_filter_matches_run_name_run_id_and_reason(
    text: str, get_page: GetPage, manager: User
) -> None:
    stage = factories.stage()
    abort = factories.abort(
        factories.run(stage, "run-77-x", name="Nightly build"), manager, reason="It is stuck"
    )
    factories.abort(factories.run(stage, "other", name="Other"), manager, reason="Mistake")
    assert matching_keys(get_page, f"text={text}") == [abort.pk]


def test_project_and_stage_filters_narrow_aborts(get_page: GetPage, manager: User) -> None:
    for project in ("shop", "payments"):
        for stage in ("Staging", "Production"):
            pipeline = factories.pipeline(parent=factories.project(project))
            factories.abort_of_new_run(
                manager, factories.stage(stage, parent=pipeline), reason=f"{project} {stage}"
            )

    def reasons(query: str) -> list[str]:
        return [text_of(reason) for reason in get_page(f"/aborts/?{query}").css("summary q")]

    assert reasons("project=shop") == ["shop Production", "shop Staging"]
    assert reasons("stage=Staging") == ["payments Staging", "shop Staging"]
    assert reasons("project=shop&stage=Staging") == ["shop Staging"]


def test_filter_for_those_that_ended_otherwise(get_page: GetPage, manager: User) -> None:
    aborts = {
        kind: factories.abort_of_new_run(manager, **fields)
        for kind, fields in FIELDS_BY_KIND.items()
    }
    expected = [
        abort.pk
        for kind, abort in aborts.items()
        if kind not in {"under_way", "aborted", "ended", "aborted_again"}
    ]
    assert sorted(matching_keys(get_page, "state=otherwise")) == sorted(expected)


def test_aborts_of_one_bulk_abort_are_one_row_that_contains_theirs(
    get_page: GetPage, manager: User
) -> None:
    before = factories.abort_of_new_run(manager)
    runs = [factories.run(before.run.stage) for _ in range(2)]
    bulk_abort = bulk_abort_of(runs, manager)
    aborts = [factories.abort(run, manager, bulk_abort=bulk_abort) for run in runs]
    html = get_page("/aborts/")
    row = select_one(html, "tr[data-bulk-abort-rows]")
    assert text_of(select_one(row, "summary strong")) == "Bulk abort of 2 runs:"
    inside = [tr.attributes["id"] for tr in row.css("[data-abort-row]")]
    assert inside == [f"abort-{abort.pk}" for abort in reversed(aborts)]
    assert abort_keys(html) == [aborts[1].pk, aborts[0].pk, before.pk]


def test_list_of_bulk_aborts_is_the_log_with_their_aborts_alone(
    operator_client: Client, run: Run, manager: User
) -> None:
    factories.abort_of_new_run(manager)
    abort = factories.abort(run, manager, bulk_abort=bulk_abort_of([run], manager, "ended"))
    answer = operator_client.get("/aborts/?bulk=1")
    assert abort_keys(parse_html(answer)) == [abort.pk]


def test_bulk_abort_without_an_abort_is_above_those_with_some(
    operator_client: Client, run: Run, manager: User
) -> None:
    bulk_abort = bulk_abort_of([run], manager, "ended")
    html = parse_html(operator_client.get("/aborts/?bulk=1"))
    link = select_one(html, "[data-without-aborts] a")
    assert link.attributes["href"] == f"/aborts/bulk/{bulk_abort.pk}/"
    factories.abort(run, manager, bulk_abort=bulk_abort)
    assert not parse_html(operator_client.get("/aborts/?bulk=1")).css("[data-without-aborts]")


def test_own_aborts_filter_compares_account_not_username(
    get_page: GetPage, manager: User, viewer: User
) -> None:
    own = factories.abort_of_new_run(manager)
    factories.abort_of_new_run(viewer)
    namesake = User(pk=viewer.pk, username="manager")
    factories.abort(factories.run(factories.stage()), namesake)
    assert matching_keys(get_page, "by_me=1") == [own.pk]


def test_combined_filters_narrow_aborts_and_fill_form(
    get_page: GetPage, manager: User, viewer: User
) -> None:
    expected = factories.abort_of_new_run(manager, **FIELDS_BY_KIND["refused"], reason="Stuck")
    factories.abort_of_new_run(manager, **FIELDS_BY_KIND["aborted"], reason="Stuck")
    factories.abort_of_new_run(viewer, **FIELDS_BY_KIND["refused"], reason="Stuck")
    query = "username=man&text=stuck&state=refused&project=shop&stage=Production"
    html = get_page(f"/aborts/?{query}&from=2026-03-31&to=2026-03-31&by_me=1")
    assert abort_keys(html) == [expected.pk]
    assert {
        element.attributes["name"]: element.attributes["value"]
        for element in html.css(".filters input:not([type=checkbox]), .filters input[checked]")
    } == {
        "username": "man",
        "text": "stuck",
        "from": "2026-03-31",
        "to": "2026-03-31",
        "by_me": "1",
    }
    assert [element.attributes["value"] for element in html.css(".filters option[selected]")] == [
        "refused", "shop", "Production",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("state=nope", "Unknown outcome “nope”"),
        ("state=Aborted", "Unknown outcome “Aborted”"),
        ("project=nope", "Unknown project “nope”"),
        ("stage=production", "Unknown stage “production”"),
        ("by_me=yes", "Unknown value “yes” ignored"),
        ("from=yesterday", "Invalid date “yesterday” ignored"),
        ("from=2026-02-30", "Invalid date “2026-02-30” ignored"),
        ("to=9999-12-31", "Invalid date “9999-12-31” ignored"),
        ("to=0001-01-01", "Invalid date “0001-01-01” ignored"),
        ("from=%3Cb%3E", "Invalid date “<b>” ignored"),
        ("before=x", "Invalid position “x”"),
        ("before=-1", "Invalid position “-1”"),
        ("before=%C2%BD", "Invalid position “½”"),
        ("before=" + "9" * 40, "Invalid position “" + "9" * 40 + "”"),
        ("stat=refused", "Unknown filter “stat”"),
        ("%3Cb%3E=1", "Unknown filter “<b>”"),
        ("username=" + "x" * 5000, "Only the first 200 characters of “"),
    ],
)
def test_invalid_filter_value_is_ignored_and_reported(
    query: str, text: str, get_page: GetPage, manager: User
) -> None:
    abort = factories.abort_of_new_run(manager, run_name="x" * 300)
    with append_only_disabled():
        Abort.objects.update(username="x" * 300)
    html = get_page(f"/aborts/?{query}")
    assert abort_keys(html) == [abort.pk]
    assert [notice.startswith(text) for notice in notices(html)] == [True]


# --- Pages ---------------------------------------------------------------------------------------


@pytest.fixture
def abort_keys_newest_first(manager: User) -> list[int]:
    """The keys of 250 aborts of one run, the newest first; every second was refused."""
    run = factories.run(factories.stage())
    Abort.objects.bulk_create(
        Abort(
            run=run, user=manager, username="manager", claimed_at=NOON, requested_at=NOON,
            settled_at=NOON, state="refused" if number % 2 else "too_late",
        )
        for number in range(250)
    )  # fmt: skip
    return list(Abort.objects.order_by("-pk").values_list("pk", flat=True))


def test_pagination_walks_all_aborts_in_pages_of_100(
    get_page: GetPage, abort_keys_newest_first: list[int]
) -> None:
    keys, address = [], "/aborts/"
    sizes = []
    while address:
        html = get_page(address)
        keys += abort_keys(html)
        sizes.append(len(abort_keys(html)))
        next_links = html.css('.pager [rel="next"]')
        address = f"/aborts/{next_links[0].attributes['href']}" if next_links else ""
    assert keys == abort_keys_newest_first
    assert sizes == [100, 100, 50]


def test_aborts_page_with_100_aborts_needs_no_more_queries_than_one(
    operator_client: Client, manager: User, abort_keys_newest_first: list[int]
) -> None:
    def queries(address: str) -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert operator_client.get(address).status_code == 200
        return len(captured)

    factories.abort_of_new_run(manager, reason="the only one").add_event(EventType.REQUESTED, NOON)
    Abort.objects.get(pk=abort_keys_newest_first[0]).add_event(EventType.REQUESTED, NOON)
    queries("/aborts/")  # which identifies the session
    assert queries("/aborts/?text=the+only+one") == queries("/aborts/?text=release")
    assert len(abort_keys(parse_html(operator_client.get("/aborts/?text=release")))) == 100


# --- Live ----------------------------------------------------------------------------------------


def refresh(client: Client, tag: str, query: str = "") -> Any:
    return client.get(f"/aborts/{query}", headers={**HTMX, "HX-PTag": tag})


def page_tag(client: Client, query: str = "") -> str:
    return live_tag(parse_html(client.get(f"/aborts/{query}")))


def test_refresh_after_change_of_unrelated_run_returns_304(
    operator_client: Client, manager: User
) -> None:
    factories.abort_of_new_run(manager)
    tag = page_tag(operator_client)
    factories.change(factories.run(factories.stage()), status="waiting")
    assert refresh(operator_client, tag).status_code == 304


# --- Permissions ---------------------------------------------------------------------------------


def test_aborts_page_lists_only_aborts_of_visible_stages(
    viewer_client: Client, aborts_in_two_projects: dict[str, Abort]
) -> None:
    html = parse_html(viewer_client.get("/aborts/"))
    assert abort_keys(html) == [aborts_in_two_projects["shop Staging"].pk]
    assert [option.attributes["value"] for option in html.css("#project option")] == ["", "shop"]


@pytest.mark.parametrize(
    "query", ["project=payments", "text=payments", "username=manager", "stage=Production"]
)
def test_filters_never_list_aborts_of_hidden_stages(
    query: str, viewer_client: Client, aborts_in_two_projects: dict[str, Abort]
) -> None:
    keys = abort_keys(parse_html(viewer_client.get(f"/aborts/?{query}")))
    assert keys in ([], [aborts_in_two_projects["shop Staging"].pk])


def test_project_filter_for_hidden_project_reports_it_as_unknown(
    viewer_client: Client, aborts_in_two_projects: dict[str, Abort]
) -> None:
    hidden, absent = (
        notices(parse_html(viewer_client.get(f"/aborts/?project={project}")))
        for project in ("payments", "atlantis")
    )
    assert [text.replace("payments", "atlantis") for text in hidden] == absent


def test_aborts_page_without_visible_aborts_reveals_nothing_more(
    viewer_client: Client, aborts_in_two_projects: dict[str, Abort]
) -> None:
    Grant.objects.filter(stage="Staging").delete()
    empty_state = select_one(parse_html(viewer_client.get("/aborts/")), "[data-empty]")
    assert (
        text_of(empty_state)
        == "No runs have been aborted from this dashboard yet. Only what you can see is listed."
    )
