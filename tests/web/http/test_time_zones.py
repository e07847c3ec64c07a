"""The zone of a page's times: the dashboard's or the chosen one, and one for the whole page."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from django.conf import settings as given
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from hypothesis import example
from hypothesis import given as any_of
from hypothesis import strategies as st
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Run, Stage
from dashboard.web.http import timezones
from tests.support import factories
from tests.support.html import HTMX, one, parse_html, words
from tests.support.live import Live
from tests.support.stream import about, open_stream

# Of another year, which is told then.
YEAR = timezone.now().year - 1
AT = datetime(YEAR, 1, 31, 23, 30, tzinfo=UTC)
# The same moment as it is written in each zone.
WRITTEN = {
    "UTC": (f"31 Jan {YEAR} 23:30:00", f"{YEAR}-01-31 23:30:00 UTC"),
    "Europe/Berlin": (f"1 Feb {YEAR} 00:30:00", f"{YEAR}-02-01 00:30:00 CET"),
    "America/Sao_Paulo": (f"31 Jan {YEAR} 20:30:00", f"{YEAR}-01-31 20:30:00 UTC-03"),
}


@pytest.fixture(autouse=True)
def in_berlin(settings: Settings) -> None:
    settings.TIME_ZONE = "Europe/Berlin"


@pytest.fixture
def old(stage: Stage) -> Run:
    return factories.run(
        stage, "r-1", status="failure", created_at=AT, started_at=AT, concluded_at=AT
    )


def started(html: LexborHTMLParser) -> tuple[str, str | None]:
    time = one(html, '[data-run="r-1"] .started time')
    assert datetime.fromisoformat(time.attributes["datetime"] or "") == AT
    return words(time), time.attributes["title"]


def foot(html: LexborHTMLParser) -> str:
    return words(one(html, ".footer > span"))


@pytest.mark.parametrize("zone", WRITTEN)
def test_all_of_a_page_is_in_the_zone_that_was_chosen(
    zone: str, old: Run, operator_client: Client
) -> None:
    operator_client.cookies[timezones.COOKIE] = zone
    html = parse_html(operator_client.get(factories.address(old.stage)))
    assert started(html) == WRITTEN[zone]
    assert foot(html) == f"Times are in {zone}."
    assert one(html, "html").attributes["data-zone"] == zone
    title = one(html, "figure.history-chart path.bar title").text()
    ended = WRITTEN[zone][0][:-3].replace(f" {YEAR}", "")
    assert title.endswith(f"ended {ended} {WRITTEN[zone][1].split()[-1]}")


def test_rows_that_others_have_read_in_another_zone_are_not_theirs(
    old: Run, operator_client: Client
) -> None:
    for zone in [*WRITTEN, *WRITTEN]:
        operator_client.cookies[timezones.COOKIE] = zone
        assert (
            started(parse_html(operator_client.get(factories.address(old.stage)))) == WRITTEN[zone]
        )


def test_a_page_offers_the_zones_that_it_is_not_in(
    old: Run, operator_client: Client, settings: Settings
) -> None:
    def offered() -> list[str | None]:
        html = parse_html(operator_client.get("/"))
        found = html.css(".footer button[name=zone]:not([data-browser-zone])")
        return [button.attributes["value"] for button in found]

    assert offered() == ["UTC"]
    operator_client.cookies[timezones.COOKIE] = "UTC"
    assert offered() == ["Europe/Berlin"]
    operator_client.cookies[timezones.COOKIE] = "America/Sao_Paulo"
    assert offered() == ["Europe/Berlin", "UTC"]
    settings.TIME_ZONE = "UTC"
    assert offered() == ["UTC"]
    del operator_client.cookies[timezones.COOKIE]
    assert offered() == []


def test_the_choice_is_kept_and_leads_back(operator_client: Client) -> None:
    back = "/aborts/?who=x&by_me=1"
    answer = operator_client.post("/zone/", {"zone": "UTC", "next": back})
    assert (answer.status_code, answer["Location"]) == (302, back)
    kept = answer.cookies[timezones.COOKIE]
    assert (kept.value, kept["max-age"], kept["samesite"]) == ("UTC", timezones.KEPT_FOR, "Lax")
    assert foot(parse_html(operator_client.get("/"))) == "Times are in UTC."


def test_who_goes_back_to_the_dashboards_zone_follows_it(
    operator_client: Client, settings: Settings
) -> None:
    operator_client.post("/zone/", {"zone": "UTC"})
    operator_client.post("/zone/", {"zone": "Europe/Berlin"})
    settings.TIME_ZONE = "Asia/Tokyo"
    assert foot(parse_html(operator_client.get("/"))) == "Times are in Asia/Tokyo."


def test_an_unknown_zone_is_refused_in_words_and_the_old_stays(operator_client: Client) -> None:
    operator_client.post("/zone/", {"zone": "UTC"})
    answer = operator_client.post("/zone/", {"zone": "Mars/Olympus"}, follow=True)
    said = words(one(parse_html(answer), "#notices .notice"))
    assert said == "This dashboard knows no time zone “Mars/Olympus”."
    assert foot(parse_html(answer)) == "Times are in UTC."


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example/", "", "javascript:0"]
)
def test_the_choice_leads_nowhere_else(elsewhere: str, operator_client: Client) -> None:
    answer = operator_client.post("/zone/", {"zone": "UTC", "next": elsewhere})
    assert answer["Location"] == "/"


def test_only_who_is_signed_in_chooses_and_only_by_a_form(client: Client, manager: User) -> None:
    assert client.post("/zone/", {"zone": "UTC"})["Location"].startswith("/accounts/login/")
    client.force_login(manager)
    assert client.get("/zone/").status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(manager)
    assert strict.post("/zone/", {"zone": "UTC"}).status_code == 403


@any_of(st.text())
@example("../../../etc/passwd")
@example("/etc/localtime")
@example("Europe")
@example("europe/berlin")
@example("UTC\0")
@example("x" * 5000)
@example("")
def test_no_nonsense_is_a_zone(name: str) -> None:
    found = timezones.known(name)
    assert found is None or found.key == name


@pytest.mark.parametrize(
    "nonsense", ["..", "/etc/passwd", "Mars/Olympus", "x" * 3000, "%00", '"', "é"]
)
def test_a_nonsense_cookie_is_as_none(nonsense: str, old: Run, operator_client: Client) -> None:
    operator_client.cookies[timezones.COOKIE] = nonsense
    html = parse_html(operator_client.get(factories.address(old.stage)))
    assert started(html) == WRITTEN["Europe/Berlin"]
    assert foot(html) == "Times are in Europe/Berlin."


def test_a_page_that_is_open_keeps_its_zone(old: Run, operator_client: Client) -> None:
    address = factories.address(old.stage)
    operator_client.cookies[timezones.COOKIE] = "UTC"
    asked = {**HTMX, timezones.HEADER: "Europe/Berlin"}
    region = operator_client.get(address, headers=asked)
    assert started(parse_html(region)) == WRITTEN["Europe/Berlin"]
    tag = region["HX-PTag"]
    assert operator_client.get(address, headers={**asked, "HX-PTag": tag}).status_code == 304
    other = operator_client.get(address, headers={**HTMX, "HX-PTag": tag})
    assert other.status_code == 200
    assert started(parse_html(other)) == WRITTEN["UTC"]


def test_the_sentence_of_an_abort_is_in_the_pages_zone(
    old: Run, manager: User, operator_client: Client
) -> None:
    run = factories.run(old.stage, "r-2", status="aborting", status_since=AT)
    factories.abort(run, manager, requested_at=AT)
    for zone, hour in (("Europe/Berlin", "00"), ("UTC", "23")):
        operator_client.cookies[timezones.COOKIE] = zone
        html = parse_html(operator_client.get(factories.address(run)))
        told = one(html, ".abort-details .abort-line .message")
        assert words(told) == f"Abort accepted; aborting since {hour}:30:00."
        assert one(told, "time").attributes["title"] == WRITTEN[zone][1]


def test_the_day_is_told_where_it_is_another_in_that_zone(
    old: Run, manager: User, operator_client: Client
) -> None:
    before = datetime(YEAR, 1, 31, 22, 30, tzinfo=UTC)  # 23:30 in Berlin: the day before
    run = factories.run(old.stage, "r-2", status="aborting", status_since=AT)
    factories.abort(run, manager, requested_at=before)
    for zone, when in (("Europe/Berlin", "1 Feb 00:30:00"), ("UTC", "23:30:00")):
        operator_client.cookies[timezones.COOKIE] = zone
        told = one(
            parse_html(operator_client.get(factories.address(run))), ".abort-details .message"
        )
        assert words(told) == f"Abort accepted; aborting since {when}."


def test_days_that_are_asked_for_are_those_of_the_page_and_its_download(
    live: Live, manager: User
) -> None:
    run = factories.run(factories.stage(), status="aborting", status_since=AT)
    act = factories.abort(run, manager, requested_at=AT)
    person = live.person("manager")
    for zone, day in (("UTC", f"{YEAR}-01-31"), ("Europe/Berlin", f"{YEAR}-02-01")):
        person.cookies[timezones.COOKIE] = zone
        asked = f"from={day}&to={day}"
        assert LexborHTMLParser(person.get(f"/aborts/?{asked}").text).css(f"#abort-{act.pk}")
        # What is downloaded is the same for everybody.
        told = person.get(f"/aborts/export.csv?{asked}").text
        assert f"{YEAR}-01-31T23:30:00.000+00:00" in told
        assert "Abort accepted; aborting since 00:30:00." in told


def test_the_admin_stays_in_the_dashboards_zone(old: Run, manager: User, client: Client) -> None:
    root = User.objects.create_superuser("root", password="x")
    act = factories.abort(old, manager, "refused", requested_at=AT, settled_at=AT)
    client.force_login(root)
    client.cookies[timezones.COOKIE] = "UTC"
    shown = client.get(f"/admin/dashboard/abort/{act.pk}/change/").content.decode()
    assert f"Feb. 1, {YEAR}, 12:30 a.m." in shown


def test_no_answer_leaves_its_zone_behind(old: Run, operator_client: Client) -> None:
    operator_client.cookies[timezones.COOKIE] = "UTC"
    operator_client.get("/")
    assert timezone.get_current_timezone_name() == given.TIME_ZONE


def test_a_stream_is_in_its_pages_zone(live: Live, viewer: User) -> None:
    run = factories.run(factories.stage(), "r-1", started_at=AT)
    person = live.person("viewer")
    with (
        open_stream(person, **{timezones.HEADER: "UTC"}) as in_utc,
        open_stream(person, **{timezones.HEADER: "America/Sao_Paulo"}) as in_sao_paulo,
        open_stream(person) as in_berlin,
    ):
        factories.trouble("It fell over.", AT)
        factories.change(run, status="retrying")
        for zone, stream in (
            ("UTC", in_utc), ("America/Sao_Paulo", in_sao_paulo), ("Europe/Berlin", in_berlin),
        ):  # fmt: skip
            row = about(stream, "run-r-1", "Retrying")
            assert words(row.css(".started time")[0]) == WRITTEN[zone][0]
    for zone, (written, _full) in WRITTEN.items():
        with person.stream(
            "GET", "/live/?page=now&key=0&since=0", headers={timezones.HEADER: zone}
        ) as answer:
            said = next(part for part in answer.iter_text() if "It fell over." in part)
            assert written in said


def test_a_page_that_waited_for_northflank_is_in_its_zone(live: Live, viewer: User) -> None:
    live.sync()
    run = Run.objects.with_stage().first()
    assert run is not None
    address = factories.address(run)
    run.delete()
    person = live.person("viewer")
    person.cookies[timezones.COOKIE] = "America/Sao_Paulo"
    answer = person.get(address)
    assert answer.status_code == 200
    assert Run.objects.filter(run_id=run.run_id).exists()
    html = LexborHTMLParser(answer.text)
    assert foot(html) == "Times are in America/Sao_Paulo."
    seen = Run.objects.get(run_id=run.run_id).created_at.astimezone(ZoneInfo("America/Sao_Paulo"))
    fact = html.css("#details-title + dl time")[0]
    assert fact.attributes["title"] == f"{seen:%Y-%m-%d %H:%M:%S} UTC-03"
