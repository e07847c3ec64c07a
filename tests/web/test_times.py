"""Times as the server writes them: UTC for programs, the deployment's time zone for people."""

from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser, LexborNode

from dashboard.models import Run, Stage
from dashboard.texts import local_time
from tests.support import factories
from tests.support.html import parse_html, select_one, text_of
from tests.support.live import Live
from tests.support.stream import next_part, open_stream

# Times of another year are written with it.
YEAR = timezone.now().year - 1
AT = datetime(YEAR, 1, 31, 23, 30, tzinfo=UTC)
# The same moment in each zone: as text and in full.
TEXTS_BY_ZONE = {
    "UTC": (f"31 Jan {YEAR} 23:30:00", f"{YEAR}-01-31 23:30:00 UTC"),
    "Europe/Berlin": (f"1 Feb {YEAR} 00:30:00", f"{YEAR}-02-01 00:30:00 CET"),
    "America/Sao_Paulo": (f"31 Jan {YEAR} 20:30:00", f"{YEAR}-01-31 20:30:00 UTC-03"),
}


@pytest.fixture(autouse=True)
def berlin_time_zone(settings: Settings) -> None:
    settings.TIME_ZONE = "Europe/Berlin"


@pytest.fixture
def old_run(stage: Stage) -> Run:
    return factories.run(
        stage, "r-1", status="failure", created_at=AT, started_at=AT, concluded_at=AT
    )


def text_and_title(time: LexborNode) -> tuple[str, str | None]:
    assert time.attributes["datetime"] == AT.isoformat()
    return text_of(time), time.attributes["title"]


def start_time(html: LexborHTMLParser) -> tuple[str, str | None]:
    return text_and_title(select_one(html, '[data-run="r-1"] .started > time'))


def footer_text(html: LexborHTMLParser) -> str:
    return text_of(select_one(html, ".footer > span"))


@pytest.mark.parametrize("zone", TEXTS_BY_ZONE)
def test_page_is_in_time_zone_of_deployment(
    zone: str, old_run: Run, operator_client: Client, settings: Settings
) -> None:
    settings.TIME_ZONE = zone
    html = parse_html(operator_client.get(factories.address(old_run.stage)))
    assert start_time(html) == TEXTS_BY_ZONE[zone]
    assert footer_text(html) == f"Times are in {zone}."
    assert select_one(html, "html").attributes["data-zone"] == zone
    bar = select_one(html, "figure.history-chart path.bar title")
    assert bar.text().endswith(f"ended {TEXTS_BY_ZONE[zone][1]}")
    assert select_one(bar, "time[data-full]").attributes["datetime"] == AT.isoformat()


def test_times_of_all_pages_carry_utc(old_run: Run, manager: User, operator_client: Client) -> None:
    waiting = factories.run(old_run.stage, "r-2", status="aborting", status_since=AT)
    factories.abort(waiting, manager, requested_at=AT)
    for address in (
        "/", "/board/", "/aborts/", "/health/", factories.address(old_run.stage.pipeline),
        factories.address(old_run.stage), factories.address(old_run), factories.address(waiting),
    ):  # fmt: skip
        times = parse_html(operator_client.get(address)).css("time")
        offsets = {(time.attributes["datetime"] or "")[-6:] for time in times}
        assert offsets == ({"+00:00"} if times else set()), address


def test_zone_choice_is_hidden_without_javascript(operator_client: Client) -> None:
    buttons = parse_html(operator_client.get("/")).css(".footer [data-zone-choice]")
    choices = [button.attributes["data-zone-choice"] for button in buttons]
    assert choices == ["deployment", "utc", "browser"]
    assert all("hidden" in button.attributes for button in buttons)


@pytest.mark.parametrize(("zone", "hour"), [("Europe/Berlin", "00"), ("UTC", "23")])
def test_abort_message_is_in_time_zone_of_deployment(
    zone: str, hour: str, old_run: Run, manager: User, operator_client: Client, settings: Settings
) -> None:
    settings.TIME_ZONE = zone
    run = factories.run(old_run.stage, "r-2", status="aborting", status_since=AT)
    factories.abort(run, manager, requested_at=AT)
    html = parse_html(operator_client.get(factories.address(run)))
    message = select_one(html, ".abort-details .abort-line .message")
    assert text_of(message) == f"Abort accepted; aborting since {hour}:30:00."
    assert select_one(message, "time").attributes["title"] == TEXTS_BY_ZONE[zone][1]
    row = select_one(parse_html(operator_client.get("/aborts/")), "[data-abort-row]")
    tooltip = select_one(row, "[data-badge]").attributes["title"]
    assert tooltip == f"Abort accepted; aborting since {TEXTS_BY_ZONE[zone][1]}."


def test_date_filter_and_export_are_in_time_zone_of_deployment(
    live: Live, manager: User, settings: Settings
) -> None:
    run = factories.run(factories.stage(), status="aborting", status_since=AT)
    abort = factories.abort(run, manager, requested_at=AT)
    client = live.sign_in("manager")
    for zone, day, hour in (
        ("UTC", f"{YEAR}-01-31", "23"), ("Europe/Berlin", f"{YEAR}-02-01", "00"),
    ):  # fmt: skip
        settings.TIME_ZONE = zone
        query = f"from={day}&to={day}"
        html = LexborHTMLParser(client.get(f"/aborts/?{query}").text)
        assert html.css(f"#abort-{abort.pk}")
        assert text_of(select_one(html, ".zone-note")) == f"Dates in the filter are in {zone}."
        export = client.get(f"/aborts/export.csv?{query}").text
        assert f"{YEAR}-01-31T23:30:00.000+00:00" in export
        assert f"Abort accepted; aborting since {hour}:30:00." in export


def test_stream_is_in_time_zone_of_deployment(live: Live, viewer: User) -> None:
    run = factories.run(factories.stage(), "r-1", started_at=AT)
    client = live.sign_in("viewer")
    with open_stream(client, **{"Time-Zone": "UTC"}) as stream:
        factories.upstream_error("It fell over.", AT)
        factories.change(run, status="retrying")
        row = next_part(stream, "run-r-1", "Retrying")
        assert text_and_title(row.css(".started time")[0]) == TEXTS_BY_ZONE["Europe/Berlin"]
    with client.stream("GET", "/live/?page=now&key=0&since=0") as answer:
        error = next(chunk for chunk in answer.iter_text() if "It fell over." in chunk)
        assert TEXTS_BY_ZONE["Europe/Berlin"][0] in error


@pytest.mark.parametrize(
    ("time", "full"),
    [
        (datetime(2026, 3, 29, 0, 59, tzinfo=UTC), "2026-03-29 01:59:00 CET"),
        (datetime(2026, 3, 29, 1, 0, tzinfo=UTC), "2026-03-29 03:00:00 CEST"),
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), "2026-10-25 02:30:00 CEST"),
        (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "2026-10-25 02:30:00 CET"),
    ],
)
def test_full_time_names_daylight_saving_time(time: datetime, full: str) -> None:
    assert local_time.format_full(time) == full
    assert local_time.format_clock(time) == full.split(maxsplit=1)[1]
