"""The status page: what is wrong and since when, the sync workers, and their requests."""

from datetime import datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from selectolax.lexbor import LexborNode

from dashboard.models import Grant, NoticeMessage, RateBudget, Stage, WebhookStats
from tests.support import factories
from tests.support.html import HTMX, GetPage, parse_html, select_one, text_of

SINCE = timezone.now() - timedelta(minutes=12)


def sync_health_text(get_page: GetPage) -> str:
    return text_of(select_one(get_page("/health/"), "[data-state]"))


def stage_order(get_page: GetPage) -> list[str]:
    """The stages in order."""
    return [text_of(row.css("th a")[0]) for row in get_page("/health/").css("tr[data-stage]")]


def get_section(get_page: GetPage, name: str) -> LexborNode:
    return select_one(get_page("/health/"), f'[aria-labelledby="{name}"]')


def test_outage_notice_links_to_health_page(get_page: GetPage, db: None) -> None:
    factories.leader()
    factories.upstream_error("It fell over.", SINCE)
    assert select_one(get_page("/"), '[data-upstream-error] a[href="/health/"]')
    html = get_page("/health/")
    assert "It fell over." in text_of(select_one(html, "[data-upstream-error]"))
    assert (
        select_one(html, "[data-upstream-error] time").attributes["datetime"] == SINCE.isoformat()
    )
    assert html.css("[data-state]") == []  # it would repeat the notice


def test_health_page_before_first_sync_reports_no_worker_then_incomplete(
    get_page: GetPage, db: None
) -> None:
    assert "Sync is not running" in sync_health_text(get_page)
    assert select_one(get_page("/health/"), "title").text().startswith("Not updating · Health")
    factories.leader()
    assert sync_health_text(get_page) == "Incomplete: projects not read yet."
    assert get_page("/health/").css("table") == []


def test_health_page_with_unread_stages_warns_incomplete(get_page: GetPage, stage: Stage) -> None:
    factories.leader()
    factories.stage("Staging", synced_at=None, fresh_until=None)
    factories.stage("Development")
    expected = "Incomplete: 1 of 3 stages not read yet, Production and Development complete"
    assert sync_health_text(get_page).startswith(expected)
    html = get_page("/health/")
    assert select_one(html, "[data-state]").attributes["data-tone"] == "warning"
    assert sum(int(text_of(cell)) for cell in html.css("td[data-not-synced]")) == 1
    assert select_one(html, "title").text().startswith("Incomplete · Health")


def test_health_page_after_outage_reports_unread_not_stale(get_page: GetPage, stage: Stage) -> None:
    factories.leader()
    Stage.objects.update(
        synced_at=timezone.now() - timedelta(hours=2),
        fresh_until=timezone.now() - timedelta(minutes=115),
    )
    assert sync_health_text(get_page).startswith("Incomplete: 1 of 1 stage not read yet")
    assert "out of date" not in sync_health_text(get_page)


def test_health_page_with_fresh_stages_reports_all_as_planned(
    get_page: GetPage, stage: Stage
) -> None:
    factories.leader()
    factories.stage("Staging")
    assert sync_health_text(get_page) == "All 2 stages are up to date."


def test_health_page_orders_worst_stages_first(get_page: GetPage, stage: Stage) -> None:
    now = timezone.now()
    factories.stage("Staging", fresh_until=now - timedelta(minutes=5))
    factories.stage("Development", error="x", error_message="No access.", error_since=SINCE)
    unread = factories.pipeline("unread")
    factories.stage("Staging", parent=unread, synced_at=None, fresh_until=None)
    assert stage_order(get_page) == [
        "Checkout / Development",
        "Checkout / Staging",
        "Unread / Staging",
        "Checkout / Production",
    ]


def test_stages_that_are_read_as_planned_are_folded(get_page: GetPage, stage: Stage) -> None:
    factories.stage("Staging", error="x", error_message="No access.", error_since=SINCE)
    html = get_page("/health/")
    assert [text_of(a) for a in html.css("#status section .wide th a")] == ["Checkout / Staging"]
    folded = select_one(html, "details#stages")
    assert text_of(select_one(folded, "summary")) == "All 2 stages"
    assert [text_of(a) for a in folded.css("th a")] == ["Checkout / Production"]


def test_stage_row_shows_interval_last_and_next_sync(get_page: GetPage, stage: Stage) -> None:
    now = timezone.now()
    later = now + timedelta(seconds=200)
    Stage.objects.update(
        synced_at=now, fresh_until=now + timedelta(seconds=300), next_sync_at=later
    )
    row = select_one(get_page("/health/"), "tr[data-stage]")
    assert "5 min" in text_of(row)
    times = [time.attributes["datetime"] for time in row.css("time")]
    assert times == [now.isoformat(), later.isoformat()]


@pytest.mark.parametrize("refused", ["a list", "a stage"])
def test_health_page_with_refused_request_names_role_to_check(
    get_page: GetPage, stage: Stage, refused: str
) -> None:
    assert get_page("/health/").css("[data-access-hint]") == []
    if refused == "a list":
        factories.failed_catalog_list(stage.pipeline.project)
    else:
        Stage.objects.update(error="forbidden", error_message="No access.", error_since=SINCE)
    hint = text_of(select_one(get_page("/health/"), "[data-access-hint]"))
    assert "Check the role of NORTHFLANK_API_TOKEN" in hint


def test_health_page_with_unreadable_stage_has_no_access_hint(
    get_page: GetPage, stage: Stage
) -> None:
    Stage.objects.update(error="server_error", error_message="It broke.", error_since=SINCE)
    assert get_page("/health/").css("[data-access-hint]") == []


def test_health_page_shows_rate_budget(get_page: GetPage, db: None) -> None:
    now = timezone.now()
    resets_at = now + timedelta(minutes=20)
    RateBudget.objects.create(
        limit=1000, remaining=612, own_requests=300, resets_at=resets_at, synced_at=now
    )
    section = get_section(get_page, "requests")
    assert "612 of 1,000 requests per hour" in text_of(section)
    assert "Used 300 by this dashboard, 88 by others" in text_of(section)
    assert "Reserved for aborts100" in text_of(section)
    assert resets_at.isoformat() in [time.attributes["datetime"] for time in section.css("time")]


def test_health_page_after_429_shows_start_and_resume_time(get_page: GetPage, db: None) -> None:
    resume_time = timezone.now() + timedelta(minutes=9)
    factories.leader()
    factories.upstream_error("Too many.", SINCE)
    RateBudget.objects.create(
        limit=1000, remaining=0, resets_at=resume_time, backoff_until=resume_time, synced_at=SINCE
    )
    times = select_one(get_page("/health/"), "[data-state]").css("time")
    assert [time.attributes["datetime"] for time in times] == [
        SINCE.isoformat(),
        resume_time.isoformat(),
    ]


@pytest.mark.parametrize(("fields", "is_alive"), [({}, "true"), ({"renewed_at": SINCE}, "false")])
def test_health_page_says_whether_the_worker_is_alive(
    get_page: GetPage, db: None, fields: dict[str, datetime], is_alive: str
) -> None:
    factories.leader("here", **fields)
    row = select_one(get_page("/health/"), "[data-worker]")
    assert (text_of(select_one(row, "dt")), row.attributes["data-alive"]) == ("here", is_alive)


# --- on other pages ----------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["/", "/board/"])
def test_page_links_to_health_page_with_stale_and_unreadable_counts(
    get_page: GetPage, stage: Stage, address: str
) -> None:
    assert get_page(address).css("[data-details-link]") == []
    factories.stage("Staging", error="x", error_message="No access.", error_since=SINCE)
    factories.stage("Development", fresh_until=SINCE)
    factories.failed_catalog_list(stage.pipeline.project)
    details_link = select_one(get_page(address), "a[data-details-link]")
    assert details_link.attributes["href"] == "/health/"
    assert text_of(details_link) == (
        "1 of 3 stages is out of date. 1 stage cannot be read. "
        "1 project or pipeline list cannot be read."
    )


def test_health_page_shows_webhook_status(get_page: GetPage, settings: Settings) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET = []
    assert "not configured" in text_of(get_section(get_page, "webhook"))
    settings.NORTHFLANK_WEBHOOK_SECRET = ["s" * 32]
    assert "no event has arrived" in text_of(get_section(get_page, "webhook"))
    WebhookStats.objects.create(
        pk=1, event_count=3, last_event_at=SINCE, last_release_event_at=SINCE
    )
    section = get_section(get_page, "webhook")
    assert "Webhook is working" in text_of(section)
    assert "Events3" in text_of(section).replace(" ", "")
    assert section.attributes["data-webhook"] == "alive"


def test_database_facts_are_those_of_last_pass(get_page: GetPage, db: None) -> None:
    assert get_page("/health/").css("[data-database]") == []
    factories.pruning(deleted_access_events=7)
    text = text_of(select_one(get_page("/health/"), "[data-database]"))
    assert "12,345" in text
    assert "54.0 MB" in text.replace("\xa0", " ")
    assert "runs: 1,234, steps of runs: 56, access events: 7" in text


def test_database_facts_are_hidden_from_who_may_not_view_all_runs(
    viewer_client: Client, db: None
) -> None:
    factories.pruning()
    Grant.objects.all().delete()
    factories.grant("view", project=factories.project())
    assert "data-database" not in viewer_client.get("/health/").text


def test_health_page_says_within_what_time_new_runs_of_production_show(
    get_page: GetPage, stage: Stage
) -> None:
    now = timezone.now()
    read_at = {"synced_at": now, "has_flow": True, "name": "Production"}
    Stage.objects.update(fresh_until=now + timedelta(minutes=4), **read_at)
    other = factories.stage(parent=factories.pipeline("p1"))
    Stage.objects.filter(pk=other.pk).update(fresh_until=now + timedelta(minutes=28), **read_at)
    row = select_one(get_page("/health/"), "tr[data-stage-name=Production]")
    assert [text_of(cell) for cell in row.css("td")][:2] == ["2", "28 min"]


# --- how to set up the webhook -------------------------------------------------------------------

SECRET = "a-secret-of-this-test-" + "x" * 20


@pytest.fixture
def admin_client(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client


def test_administrator_sees_what_to_enter_where_to_set_up_the_webhook(
    admin_client: Client, stage: Stage, settings: Settings
) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET, settings.BASE_URL = [SECRET], "https://releases.example.com"
    now = timezone.now()
    Stage.objects.update(synced_at=now, fresh_until=now + timedelta(minutes=28))
    answer = admin_client.get("/health/", headers={"Accept-Encoding": "gzip"})
    setup = select_one(parse_html(answer), "#webhook-setup")
    assert text_of(select_one(setup, "#webhook-secret")) == SECRET
    address = text_of(select_one(setup, "#webhook-address"))
    assert address == "https://releases.example.com/hooks/northflank/"
    assert "New runs show after 1 s instead of up to 28 min." in text_of(setup)
    assert "start, update, success, failure, aborted" in text_of(setup)
    assert setup.css("[data-env-line]") == []
    assert "no-store" in answer["Cache-Control"]
    assert "Content-Encoding" not in answer  # its length would help to guess the secret


def test_administrator_without_secret_gets_a_new_line_for_the_settings_each_time(
    admin_client: Client, settings: Settings
) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET = []
    lines = [
        text_of(select_one(parse_html(admin_client.get("/health/")), "[data-env-line]"))
        for _ in range(2)
    ]
    assert lines[0] != lines[1]
    name, _, secret = lines[0].partition("=")
    assert name == "NORTHFLANK_WEBHOOK_SECRET"
    assert len(secret) == 64


@pytest.mark.parametrize("name", ["viewer", "manager"])
def test_nobody_else_and_no_refresh_gets_the_secret(
    name: str, admin_client: Client, settings: Settings, request: pytest.FixtureRequest
) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET = [SECRET]
    assert SECRET in admin_client.get("/health/").text
    assert SECRET not in admin_client.get("/health/", headers=HTMX).text
    other = Client()
    other.force_login(request.getfixturevalue(name))
    assert SECRET not in other.get("/health/").text
    assert "webhook-setup" not in other.get("/health/").text


def test_set_up_is_folded_once_the_webhook_works(admin_client: Client, settings: Settings) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET = [SECRET]

    def is_open() -> bool:
        html = parse_html(admin_client.get("/health/"))
        return "open" in select_one(html, "#webhook-setup details").attributes

    assert is_open()
    WebhookStats.objects.create(pk=1, last_event_at=SINCE, last_release_event_at=SINCE)
    assert not is_open()


def test_failing_channel_is_told_by_its_name_only(
    get_page: GetPage, settings: Settings, db: None
) -> None:
    settings.NOTIFY_URLS = {"oncall": "slack://planted", "mail": "mailto://planted"}
    message = {"channel": "oncall", "title": "t", "body": "b", "payload": {}, "created_at": SINCE}
    NoticeMessage.objects.create(**message, attempts=1, sent_at=SINCE)
    assert get_page("/health/").css("[data-failing-channel]") == []
    error = "The service answered with status 404."
    failed = {"attempts": 2, "claimed_at": SINCE, "next_try_at": SINCE, "error": error}
    NoticeMessage.objects.create(**message, **failed)
    NoticeMessage.objects.create(**message, next_try_at=SINCE)
    text = text_of(select_one(get_page("/health/"), "[data-failing-channel]"))
    assert text.startswith("oncall failed ")
    assert f": {error} last sent " in text
    assert text.endswith("2 messages wait")
    assert "planted" not in str(get_page("/health/").html)
