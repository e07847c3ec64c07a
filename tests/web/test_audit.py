"""The audit: every act with its facts, found by filters, in pages."""

from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser, LexborNode

from dashboard.models import Abort, Grant
from dashboard.models.aborts import AbortState, What
from dashboard.web.components import abort_log
from tests.support import factories
from tests.support.abort_kinds import EACH_KIND, NOON, settled
from tests.support.factories import HOSTILE
from tests.support.flights import unguarded
from tests.support.html import HTMX, See, one, parsed, words


def shown(html: LexborHTMLParser) -> list[int]:
    """The keys of the acts on a page, in their order."""
    return [int((row.id or "").removeprefix("act-")) for row in html.css("[data-abort-act]")]


def found(see: See, query: str) -> list[int]:
    return shown(see(f"/aborts/?{query}"))


def notices(html: LexborHTMLParser) -> list[str]:
    return [words(each) for each in html.css("main > .trouble")]


def only(html: LexborHTMLParser) -> LexborNode:
    return one(html, "[data-abort-act]")


# --- What is told of an act ----------------------------------------------------------------------


def test_the_header_leads_there(see: See, db: None) -> None:
    assert one(see("/"), 'nav a[href="/aborts/"]').text() == "Aborts"
    assert one(see("/aborts/"), 'nav a[aria-current="page"]').attributes["href"] == "/aborts/"


def test_strangers_do_not_see_it(client: Client, db: None) -> None:
    for address in ("/aborts/", "/aborts/export.csv", "/aborts/export.json"):
        assert client.get(address)["Location"] == f"/accounts/login/?next={address}"


def test_an_act_tells_who_from_where_and_why(see: See, manager: User) -> None:
    abort = factories.act(manager, reason="Stuck since noon", client_address="192.0.2.7")
    row = one(see("/aborts/"), f"#act-{abort.pk}")
    assert words(one(row, ".who")) == "manager on a page from 192.0.2.7"
    assert words(one(row, ".reason q")) == "Stuck since noon"
    assert one(row, ".when time").attributes["datetime"] == abort.requested_at.isoformat()


@pytest.mark.parametrize(
    ("via", "token", "said"),
    [
        ("page", "", "on a page"),
        ("api", "PagerDuty", "by the API, token “PagerDuty”"),
        ("api", "", "by the API"),
        ("command", "", "by command"),
    ],
)
def test_an_act_tells_by_which_way_it_came(
    via: str, token: str, said: str, see: See, manager: User
) -> None:
    factories.act(manager, via=via, token_name=token)
    assert words(one(only(see("/aborts/")), ".who bdi.muted")) == said


def test_an_act_leads_to_its_run_and_names_the_place(see: See, manager: User) -> None:
    abort = factories.act(manager, run_name="Nightly")
    row = only(see("/aborts/"))
    assert one(row, "a.title").attributes["href"] == factories.address(abort.run)
    assert words(one(row, "a.title")) == "Nightly"
    assert words(one(row, ".place")) == "Shop / Checkout / Production"


def test_an_act_tells_how_it_ended_and_how_long_that_took(see: See, manager: User) -> None:
    stage = factories.stage()
    run = factories.run(stage, status="aborted")
    factories.abort(run, manager, **EACH_KIND["aborted"])
    row = only(see("/aborts/"))
    assert words(one(row, "[data-badge]")) == "Aborted"
    assert words(one(row, ".abort-line")) == "Aborted after 41 s."
    assert words(one(row, ".took")) == "41 s"


def test_an_act_under_way_counts_its_time(see: See, manager: User) -> None:
    abort = factories.act(manager)
    since = one(only(see("/aborts/")), ".took time").attributes["datetime"]
    assert datetime.fromisoformat(since or "") == abort.requested_at


def test_an_act_tells_its_trail_line_by_line(see: See, manager: User) -> None:
    abort = factories.act(manager, reason="Stuck")
    abort.note(What.REQUESTED, NOON)
    abort.note(What.SENT, NOON)
    lines = one(only(see("/aborts/")), "details").css(".trail li")
    assert [words(one(line, "span")) for line in lines] == [
        "Requested by manager: “Stuck”.",
        "Sent to Northflank.",
    ]


def test_an_act_tells_what_northflank_answered(see: See, manager: User) -> None:
    factories.act(manager, **EACH_KIND["refused"], error_id="err-7")
    facts = [words(fact) for fact in only(see("/aborts/")).css(".facts dd")]
    assert facts == ["409: No.", "err-7"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"answer_status": 409}, "Northflank’s answer"),
        ({"answer_status": None, "sent_at": None}, "What went wrong"),
    ],
)
@pytest.mark.parametrize("place", ["audit", "run"])
def test_our_own_words_are_not_called_northflanks(
    place: str, fields: dict[str, Any], name: str, see: See, manager: User
) -> None:
    abort = factories.act(manager, **EACH_KIND["refused"] | fields)
    html = see("/aborts/" if place == "audit" else factories.address(abort.run))
    of_act = "[data-abort-act]" if place == "audit" else ".abort-act"
    names = {words(fact) for fact in html.css(f"{of_act} .facts dt")}
    assert names & {"Northflank’s answer", "What went wrong"} == {name}


def test_what_happened_on_another_day_has_its_day(see: See, manager: User) -> None:
    abort = factories.act(manager)
    abort.note(What.REQUESTED, NOON)
    abort.note(What.SENT, timezone.now())
    before, today = one(only(see("/aborts/")), "details").css(".trail time")
    assert words(before).startswith("31 Mar ")
    assert len(words(today)) == len("12:00:00")


def test_the_author_is_named_when_the_account_is_gone(see: See, viewer: User) -> None:
    factories.act(viewer)
    viewer.delete()
    assert words(one(only(see("/aborts/")), ".who bdi:not(.muted)")) == "viewer"


def test_the_newest_comes_first(see: See, manager: User) -> None:
    acts = [factories.act(manager).pk for _ in range(3)]
    assert found(see, "") == acts[::-1]


def test_hostile_text_stays_text(see: See, manager: User) -> None:
    stage = factories.stage(
        of=factories.pipeline("c&d", of=factories.project("a/<b>", name=HOSTILE), name=HOSTILE)
    )
    factories.act(manager, stage, **EACH_KIND["refused"] | {"reason": HOSTILE, "answer": HOSTILE},
        token_name=HOSTILE, via="api", run_name=HOSTILE, error_id=HOSTILE)  # fmt: skip
    for headers in ({}, HTMX):
        html = see(f"/aborts/?text={quote(HOSTILE[:100])}", **headers)
        assert html.css("#hostile, script:not([src]):not(#words), x") == []
        assert words(one(only(html), ".reason q")) == " ".join(HOSTILE.split())


# --- Filters -------------------------------------------------------------------------------------


@pytest.fixture
def of_each_kind(manager: User) -> dict[str, int]:
    return {name: factories.act(manager, **fields).pk for name, fields in EACH_KIND.items()}


def test_there_is_an_act_of_each_kind_to_test_with() -> None:
    assert EACH_KIND.keys() == abort_log.KINDS.keys()
    assert {fields["state"] for fields in EACH_KIND.values()} | {AbortState.REQUESTED} == {
        *AbortState
    }


@pytest.mark.parametrize("kind", EACH_KIND)
def test_each_outcome_finds_its_acts_and_no_others(
    kind: str, see: See, of_each_kind: dict[str, int]
) -> None:
    html = see(f"/aborts/?state={kind}")
    assert shown(html) == [of_each_kind[kind]]
    assert only(html).attributes["data-state"] == kind
    assert words(one(only(html), "[data-badge]")) == str(abort_log.KINDS[kind].word)
    assert one(html, "#state option[selected]").attributes["value"] == kind


@pytest.mark.parametrize("status", ["aborted", "success", "running"])
@pytest.mark.parametrize("gone", [False, True])
def test_each_act_is_of_the_one_kind_whose_filter_finds_it(
    gone: bool, status: str, manager: User
) -> None:
    gone_at = NOON if gone else None
    made = [
        factories.act(
            manager, **settled(state, outcome=outcome), run_status=status, run_gone_at=gone_at
        )
        for state in set(AbortState) - {AbortState.REQUESTED, AbortState.ACCEPTED}
        for outcome in ("", "aborted", "success")
    ]
    found = {
        name: set(Abort.objects.filter(kind.which).values_list("pk", flat=True))
        for name, kind in abort_log.KINDS.items()
    }
    for each in made:
        assert [name for name, keys in found.items() if each.pk in keys] == [abort_log.kind(each)]


def test_a_run_that_goes_on_after_its_end_is_told_loudly(see: See, manager: User) -> None:
    factories.act(manager, **EACH_KIND["turned"])
    row = only(see("/aborts/"))
    assert words(one(row, "[data-badge]")) == "Turned out otherwise"
    assert one(row, "[data-badge]").attributes["data-tone"] == "bad"
    assert words(one(row, ".abort-line[data-loud]")).startswith("Northflank had said aborted")


def test_an_act_that_was_not_even_sent_is_under_way(see: See, manager: User) -> None:
    abort = factories.act(manager, state="requested", sent_at=None, answered_at=None)
    assert found(see, "state=under_way") == [abort.pk]


def test_a_run_that_northflank_forgot_is_gone(see: See, manager: User) -> None:
    abort = factories.act(manager, **settled(AbortState.CONCLUDED, outcome=""), run_gone_at=NOON)
    assert found(see, "state=gone") == [abort.pk]


@pytest.mark.parametrize("who", ["manager", "MANA", "nage"])
def test_who_is_found_by_a_part_of_the_name(
    who: str, see: See, manager: User, viewer: User
) -> None:
    abort = factories.act(manager)
    factories.act(viewer)
    assert found(see, f"who={who}") == [abort.pk]


@pytest.mark.parametrize("text", ["nightly", "Run-77", "stuck"])
def test_a_text_is_looked_for_in_name_id_and_reason(text: str, see: See, manager: User) -> None:
    stage = factories.stage()
    abort = factories.abort(
        factories.run(stage, "run-77-x", name="Nightly build"), manager, reason="It is stuck"
    )
    factories.abort(factories.run(stage, "other", name="Other"), manager, reason="Mistake")
    assert found(see, f"text={text}") == [abort.pk]


@pytest.mark.parametrize("text", ["%", "_", "'", "\\"])
def test_a_text_is_no_pattern(text: str, see: See, manager: User) -> None:
    abort = factories.act(manager, reason=f"a{text}b")
    factories.act(manager, reason="ab")
    assert found(see, f"text={quote(text)}") == [abort.pk]


def test_a_project_and_a_stage_are_chosen(see: See, manager: User) -> None:
    for project in ("shop", "payments"):
        for stage in ("Staging", "Production"):
            of = factories.pipeline(of=factories.project(project))
            factories.act(manager, factories.stage(stage, of=of), reason=f"{project} {stage}")

    def reasons(query: str) -> list[str]:
        return [words(reason) for reason in see(f"/aborts/?{query}").css(".reason q")]

    assert reasons("project=shop") == ["shop Production", "shop Staging"]
    assert reasons("stage=Staging") == ["payments Staging", "shop Staging"]
    assert reasons("project=shop&stage=Staging") == ["shop Staging"]


def test_only_mine_goes_by_the_account_not_by_the_name(
    see: See, manager: User, viewer: User
) -> None:
    mine = factories.act(manager)
    factories.act(viewer)
    namesake = User(pk=viewer.pk, username="manager")
    factories.abort(factories.run(factories.stage()), namesake)
    assert found(see, "mine=1") == [mine.pk]


def test_days_are_those_of_the_dashboards_zone(see: See, manager: User, settings: Settings) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    zone = ZoneInfo("Asia/Tokyo")
    timezone.activate(zone)
    moments = [
        datetime(2026, 3, 30, 23, 59, 59, tzinfo=zone),
        datetime(2026, 3, 31, 0, 0, tzinfo=zone),
        datetime(2026, 3, 31, 23, 59, 59, tzinfo=zone),
        datetime(2026, 4, 1, 0, 0, tzinfo=zone),
    ]
    acts = [factories.act(manager, requested_at=moment).pk for moment in moments]
    try:
        assert found(see, "from=2026-03-31&to=2026-03-31") == [acts[2], acts[1]]
        assert found(see, "from=2026-03-31") == [acts[3], acts[2], acts[1]]
        assert found(see, "to=2026-03-31") == [acts[2], acts[1], acts[0]]
    finally:
        timezone.deactivate()


def test_filters_combine_and_stand_in_the_form(see: See, manager: User, viewer: User) -> None:
    wanted = factories.act(manager, **EACH_KIND["refused"], reason="Stuck")
    factories.act(manager, **EACH_KIND["aborted"], reason="Stuck")
    factories.act(viewer, **EACH_KIND["refused"], reason="Stuck")
    query = "who=man&text=stuck&state=refused&project=shop&stage=Production"
    html = see(f"/aborts/?{query}&from=2026-03-31&to=2026-03-31&mine=1")
    assert shown(html) == [wanted.pk]
    assert {
        each.attributes["name"]: each.attributes["value"]
        for each in html.css(".filters input:not([type=checkbox]), .filters input[checked]")
    } == {"who": "man", "text": "stuck", "from": "2026-03-31", "to": "2026-03-31", "mine": "1"}
    assert [each.attributes["value"] for each in html.css(".filters option[selected]")] == [
        "refused", "shop", "Production",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("state=nope", "There is no outcome “nope”"),
        ("state=Aborted", "There is no outcome “Aborted”"),
        ("project=nope", "There is no project “nope”"),
        ("stage=production", "There is no stage “production”"),
        ("mine=yes", "There is no such choice “yes”"),
        ("from=yesterday", "“yesterday” is no day"),
        ("from=2026-02-30", "“2026-02-30” is no day"),
        ("to=9999-12-31", "“9999-12-31” is no day"),
        ("to=0001-01-01", "“0001-01-01” is no day"),
        ("from=%3Cb%3E", "“<b>” is no day"),
        ("before=x", "“x” is no place in the list"),
        ("before=-1", "“-1” is no place in the list"),
        ("before=%C2%BD", "“½” is no place in the list"),
        ("before=" + "9" * 40, "“" + "9" * 40 + "” is no place in the list"),
        ("stat=refused", "There is no filter “stat”"),
        ("%3Cb%3E=1", "There is no filter “<b>”"),
        ("who=" + "x" * 5000, "Only the first 200 characters of “"),
    ],
)
def test_nonsense_is_ignored_and_said_so(query: str, said: str, see: See, manager: User) -> None:
    abort = factories.act(manager, run_name="x" * 300)
    with unguarded():
        Abort.objects.update(username="x" * 300)
    html = see(f"/aborts/?{query}")
    assert shown(html) == [abort.pk]
    assert [notice.startswith(said) for notice in notices(html)] == [True]


@pytest.mark.parametrize("query", ["who=%00man%00", "text=%20%20", "who=&state=&from=&before="])
def test_what_says_nothing_is_passed_over(query: str, see: See, manager: User) -> None:
    abort = factories.act(manager)
    html = see(f"/aborts/?{query}")
    assert shown(html) == [abort.pk]
    assert notices(html) == []


def test_before_the_first_act_it_says_so(see: See, db: None) -> None:
    assert words(one(see("/aborts/"), '[data-empty="nothing_exists"]')) == (
        "No run has been aborted from here yet."
    )


def test_a_filter_that_nothing_matches_leads_back(see: See, manager: User) -> None:
    factories.act(manager)
    empty = one(see("/aborts/?state=refused"), '[data-empty="nothing_matches"]')
    assert one(empty, "a").attributes["href"] == "/aborts/"


def test_before_the_oldest_there_is_nothing(see: See, manager: User) -> None:
    abort = factories.act(manager)
    empty = one(see(f"/aborts/?before={abort.pk}"), '[data-empty="nothing_matches"]')
    assert one(empty, "a").text() == "The newest"


# --- Pages ---------------------------------------------------------------------------------------


@pytest.fixture
def many(manager: User) -> list[int]:
    """The keys of 250 acts on one run, the newest first; every second was refused."""
    run = factories.run(factories.stage())
    Abort.objects.bulk_create(
        Abort(
            run=run, user=manager, username="manager", claimed_at=NOON, requested_at=NOON,
            settled_at=NOON, state="refused" if number % 2 else "too_late",
        )
        for number in range(250)
    )  # fmt: skip
    return list(Abort.objects.order_by("-pk").values_list("pk", flat=True))


def test_pages_of_a_hundred_lead_through_all_of_them(see: See, many: list[int]) -> None:
    seen, address = [], "/aborts/"
    sizes = []
    while address:
        html = see(address)
        seen += shown(html)
        sizes.append(len(shown(html)))
        following = html.css('.pager [rel="next"]')
        address = f"/aborts/{following[0].attributes['href']}" if following else ""
    assert seen == many
    assert sizes == [100, 100, 50]


def test_pages_keep_the_filter_and_lead_back_to_the_newest(see: See, many: list[int]) -> None:
    first = see("/aborts/?state=refused&who=man")
    assert first.css('.pager [rel="first"]') == []
    following = one(first, '.pager [rel="next"]').attributes["href"] or ""
    second = see(f"/aborts/{following}")
    assert len(shown(second)) == 25
    back = urlsplit(one(second, '.pager [rel="first"]').attributes["href"] or "")
    assert (back.path, parse_qs(back.query)) == ("/aborts/", {"state": ["refused"], "who": ["man"]})


def test_an_act_that_comes_meanwhile_shifts_no_page(
    see: See, many: list[int], manager: User
) -> None:
    following = one(see("/aborts/"), '.pager [rel="next"]').attributes["href"]
    factories.act(manager)
    assert shown(see(f"/aborts/{following}")) == many[100:200]


def test_a_hundred_acts_need_no_more_queries_than_one(
    at_desk: Client, manager: User, many: list[int]
) -> None:
    def queries(address: str) -> int:
        with CaptureQueriesContext(
            connection,
        ) as asked:
            assert at_desk.get(address).status_code == 200
        return len(asked)

    factories.act(manager, reason="the only one").note(What.REQUESTED, NOON)
    Abort.objects.get(pk=many[0]).note(What.REQUESTED, NOON)
    assert len(shown(parsed(at_desk.get("/aborts/")))) == 100
    assert queries("/aborts/") == queries("/aborts/?text=the+only+one")


# --- Live ----------------------------------------------------------------------------------------


def refresh(client: Client, tag: str, query: str = "") -> Any:
    return client.get(f"/aborts/{query}", headers={**HTMX, "HX-PTag": tag})


def tag_of(client: Client, query: str = "") -> str:
    return one(parsed(client.get(f"/aborts/{query}")), "#live").attributes["hx-ptag"] or ""


def test_a_refresh_of_what_did_not_change_is_told_so(at_desk: Client, manager: User) -> None:
    factories.act(manager)
    answer = refresh(at_desk, tag_of(at_desk))
    assert (answer.status_code, answer.content) == (304, b"")


def test_what_the_mirror_hears_of_other_runs_changes_nothing(
    at_desk: Client, manager: User
) -> None:
    factories.act(manager)
    tag = tag_of(at_desk)
    factories.change(factories.run(factories.stage()), status="waiting")
    assert refresh(at_desk, tag).status_code == 304


def test_an_act_that_moves_on_is_refreshed(at_desk: Client, manager: User) -> None:
    abort = factories.act(manager)
    tag = tag_of(at_desk)
    factories.change(abort.run, status="aborted", concluded=True, in_flight=False)
    assert abort.move(
        AbortState.CONCLUDED, What.CONCLUDED, timezone.now(),
        outcome="aborted", settled_at=timezone.now(),
    )  # fmt: skip
    answer = refresh(at_desk, tag)
    assert answer.content.lstrip().startswith(b'<div id="live"')
    assert words(one(only(parsed(answer)), "[data-badge]")) == "Aborted"


def test_a_run_that_turns_is_refreshed(at_desk: Client, manager: User) -> None:
    abort = factories.act(manager, **EACH_KIND["aborted"])
    tag = tag_of(at_desk)
    factories.change(abort.run, status="success", concluded=True, in_flight=False)
    assert "now says success" in words(one(only(parsed(refresh(at_desk, tag))), ".abort-line"))


def test_a_new_act_is_refreshed(at_desk: Client, manager: User) -> None:
    factories.act(manager)
    tag = tag_of(at_desk)
    factories.act(manager)
    assert len(shown(parsed(refresh(at_desk, tag)))) == 2


@pytest.mark.parametrize(("state", "seconds"), [("under_way", "2"), ("aborted", "15")])
def test_a_page_with_an_act_under_way_asks_quickly(
    state: str, seconds: str, see: See, manager: User
) -> None:
    factories.act(manager, **EACH_KIND[state])
    assert one(see("/aborts/"), "#live").attributes["data-refresh"] == seconds


def test_the_title_counts_what_is_under_way(see: See, manager: User) -> None:
    assert one(see("/aborts/"), "title").text() == "Aborts · Release flows"
    factories.act(manager)
    assert one(see("/aborts/"), "title").text() == "Aborts (1 under way) · Release flows"


# --- Rights --------------------------------------------------------------------------------------


def test_only_acts_of_places_one_may_see_are_shown(
    looking_on: Client, in_two_places: dict[str, Abort]
) -> None:
    html = parsed(looking_on.get("/aborts/"))
    assert shown(html) == [in_two_places["shop Staging"].pk]
    assert [each.attributes["value"] for each in html.css("#project option")] == ["", "shop"]


@pytest.mark.parametrize(
    "query", ["project=payments", "text=payments", "who=manager", "stage=Production"]
)
def test_no_filter_reaches_beyond_the_rights(
    query: str, looking_on: Client, in_two_places: dict[str, Abort]
) -> None:
    shown_now = shown(parsed(looking_on.get(f"/aborts/?{query}")))
    assert shown_now in ([], [in_two_places["shop Staging"].pk])


def test_a_project_that_one_may_not_see_is_as_good_as_none(
    looking_on: Client, in_two_places: dict[str, Abort]
) -> None:
    hidden, absent = (
        notices(parsed(looking_on.get(f"/aborts/?project={project}")))
        for project in ("payments", "atlantis")
    )
    assert [text.replace("payments", "atlantis") for text in hidden] == absent


def test_who_sees_no_act_is_told_no_more_than_that(
    looking_on: Client, in_two_places: dict[str, Abort]
) -> None:
    Grant.objects.filter(stage="Staging").delete()
    empty = one(parsed(looking_on.get("/aborts/")), "[data-empty]")
    assert words(empty) == "No run that you may see has been aborted from here yet."
