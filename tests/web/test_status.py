"""The status page: what is wrong, since when, who reads, with how many requests."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from selectolax.lexbor import LexborNode

from dashboard.models import Budget, Push, Stage
from dashboard.web.components.sync_report import MOST_STAGES
from tests.support import factories
from tests.support.html import HTMX, See, one, parsed, words
from tests.support.live import Live

SINCE = timezone.now() - timedelta(minutes=12)


def verdict(see: See) -> str:
    return words(one(see("/status/"), "[data-state]"))


def places(see: See) -> list[str]:
    """The stages in their order."""
    return [words(row.css("th a")[0]) for row in see("/status/").css("tr[data-stage]")]


def section(see: See, name: str) -> LexborNode:
    return one(see("/status/"), f'[aria-labelledby="{name}"]')


def test_everyone_who_is_signed_in_sees_it(looking_on: Client) -> None:
    assert looking_on.get("/status/").status_code == 200


def test_strangers_do_not(client: Client, db: None) -> None:
    assert client.get("/status/")["Location"] == "/accounts/login/?next=/status/"


def test_the_header_leads_there(see: See, db: None) -> None:
    assert one(see("/"), 'nav a[href="/status/"]').text() == "Status"
    assert one(see("/status/"), 'nav a[aria-current="page"]').attributes["href"] == "/status/"


def test_the_accounts_trouble_leads_there(see: See, db: None) -> None:
    factories.worker()
    factories.trouble("It fell over.", SINCE)
    assert one(see("/"), '[data-trouble] a[href="/status/"]')
    html = see("/status/")
    assert "It fell over." in words(one(html, "[data-trouble]"))
    assert one(html, "[data-trouble] time").attributes["datetime"] == SINCE.isoformat()
    assert html.css("[data-state]") == []  # it would say the same


def test_before_anything_was_read_it_says_so(see: See, db: None) -> None:
    assert "Nobody reads Northflank" in verdict(see)
    assert one(see("/status/"), "title").text().startswith("Can’t see · Status")
    factories.worker()
    assert verdict(see) == "Incomplete: Northflank’s projects have not been listed yet."
    assert see("/status/").css("table") == []


def test_what_was_not_read_yet_is_told_in_amber(see: See, stage: Stage) -> None:
    factories.worker()
    factories.stage("Staging", synced_at=None, promised_at=None)
    factories.stage("Development")
    expected = "Incomplete: 1 of 3 stages not read yet, all of Production and Development read"
    assert verdict(see).startswith(expected)
    html = see("/status/")
    assert one(html, "[data-state]").attributes["data-tone"] == "warning"
    assert sum(int(words(cell)) for cell in html.css("td[data-unread]")) == 1
    assert one(html, "title").text().startswith("Incomplete · Status")


def test_what_was_not_read_since_an_outage_is_not_late_but_unread(see: See, stage: Stage) -> None:
    factories.worker()
    Stage.objects.update(
        synced_at=timezone.now() - timedelta(hours=2),
        promised_at=timezone.now() - timedelta(minutes=115),
    )
    assert verdict(see).startswith("Incomplete: 1 of 1 stage not read again yet")
    assert "older than promised" not in verdict(see)


def test_a_pause_that_northflank_asked_for_is_told(see: See, stage: Stage) -> None:
    factories.worker()
    now = timezone.now()
    Budget.objects.create(
        limit=1000, remaining=985, resets_at=now + timedelta(minutes=50), seen_at=now, ours=15,
        refused_until=now + timedelta(seconds=50), refusals=2,
    )  # fmt: skip
    assert verdict(see).startswith(
        "Northflank asks for a pause (429), with 985 of 1,000 requests left, until "
    )
    paused = words(one(section(see, "requests"), "[data-paused]"))
    assert paused.endswith("then one request tries; refused 2 times in a row")
    Budget.objects.update(refused_until=now)
    assert "one request tries" in verdict(see)


def test_all_is_well(see: See, stage: Stage) -> None:
    factories.worker()
    factories.stage("Staging")
    assert verdict(see) == "All 2 stages are as fresh as promised."


def test_the_worst_stages_come_first(see: See, stage: Stage) -> None:
    now = timezone.now()
    factories.stage("Staging", promised_at=now - timedelta(minutes=5))
    factories.stage("Development", error="x", error_message="No access.", error_since=SINCE)
    unread = factories.pipeline("unread")
    factories.stage("Staging", of=unread, synced_at=None, promised_at=None)
    assert places(see) == [
        "Checkout / Development",
        "Checkout / Staging",
        "Unread / Staging",
        "Checkout / Production",
    ]


def test_what_is_due_sooner_comes_before_what_was_read_longer_ago(see: See, stage: Stage) -> None:
    now = timezone.now()
    idle = {"synced_at": now - timedelta(minutes=12), "promised_at": now + timedelta(minutes=4)}
    factories.stage("Staging", **idle)
    busy = {"synced_at": now - timedelta(seconds=56), "promised_at": now - timedelta(seconds=5)}
    Stage.objects.filter(pk=stage.pk).update(**busy)
    assert places(see) == ["Checkout / Production", "Checkout / Staging"]


def test_a_late_stage_is_late(see: See, stage: Stage) -> None:
    Stage.objects.update(promised_at=timezone.now() - timedelta(minutes=5))
    row = one(see("/status/"), "tr[data-stage]")
    assert row.attributes["data-late"] == "true"
    assert "late" in words(row)


def test_a_stage_shows_its_promise_and_its_next_reading(see: See, stage: Stage) -> None:
    now = timezone.now()
    later = now + timedelta(seconds=200)
    Stage.objects.update(
        synced_at=now, promised_at=now + timedelta(seconds=300), next_sync_at=later
    )
    row = one(see("/status/"), "tr[data-stage]")
    assert "5 min" in words(row)
    times = [time.attributes["datetime"] for time in row.css("time")]
    assert times == [now.isoformat(), later.isoformat()]


def test_a_stage_that_is_due_is_read_now(see: See, stage: Stage) -> None:
    Stage.objects.update(next_sync_at=timezone.now() - timedelta(seconds=1))
    assert words(one(see("/status/"), "tr[data-stage] td:last-child")) == "now"


def test_a_stages_trouble_is_told_with_its_begin(see: See, stage: Stage) -> None:
    Stage.objects.update(error="x", error_message="No access.", error_since=SINCE, failures=3)
    line = one(see("/status/"), "tr[data-stage] .trouble")
    assert words(line).startswith("No access. Since")
    assert "3 attempts" in words(line)
    assert one(line, "time").attributes["datetime"] == SINCE.isoformat()


def test_a_list_that_cannot_be_read_is_told(see: See, stage: Stage) -> None:
    factories.unlisted(stage.pipeline.project)
    factories.unlisted(None, "Nobody may.")
    said = words(section(see, "lists"))
    assert "The pipelines of ShopNo access." in said
    assert "The list of projectsNobody may." in said


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "idle"),
        ({"active_at": timezone.now()}, "recently changed"),
        ({"has_flow": False}, "no release flow"),
    ],
)
def test_why_a_stage_is_read_is_said_in_words(
    see: See, stage: Stage, fields: dict[str, object], kind: str
) -> None:
    Stage.objects.update(**fields)
    assert words(one(see("/status/"), "tr[data-stage] td:nth-child(2)")) == kind
    assert words(one(see("/status/"), "tr[data-kind] th")) == kind


def test_many_stages_are_summed_up(see: See, stage: Stage) -> None:
    for number in range(MOST_STAGES + 2):
        factories.stage(of=factories.pipeline(f"p{number}"))
    late = Stage.objects.latest("pk")
    Stage.objects.filter(pk=late.pk).update(promised_at=SINCE)
    html = see("/status/")
    assert len(html.css("tr[data-stage]")) == MOST_STAGES
    assert html.css("tr[data-stage]")[0].attributes["data-late"] == "true"
    assert words(one(html, "[data-cut]")).startswith("3 more")
    assert [words(cell) for cell in html.css("tr[data-kind] td")][0::5] == [f"{MOST_STAGES + 3}"]


def test_a_stage_that_is_gone_is_left_out(see: See, stage: Stage) -> None:
    stage.pipeline.gone_at = SINCE
    stage.pipeline.save()
    assert places(see) == []


def test_requests_are_told(see: See, db: None) -> None:
    now = timezone.now()
    resets_at = now + timedelta(minutes=20)
    Budget.objects.create(limit=1000, remaining=612, ours=300, resets_at=resets_at, seen_at=now)
    said = section(see, "requests")
    assert "612 of 1000 an hour" in words(said)
    assert "Used300 by this dashboard, 88 by others" in words(said)
    assert "Kept for aborts100" in words(said)
    assert resets_at.isoformat() in [time.attributes["datetime"] for time in said.css("time")]


def test_after_the_window_all_requests_are_there_again(see: See, db: None) -> None:
    Budget.objects.create(limit=1000, remaining=3, resets_at=SINCE, seen_at=SINCE)
    said = words(section(see, "requests"))
    assert "1000 of 1000 an hour" in said
    assert "with the next request" in said


def test_a_refusal_says_until_when(see: See, db: None) -> None:
    until = timezone.now() + timedelta(minutes=9)
    factories.worker()
    factories.trouble("Too many.", SINCE)
    Budget.objects.create(
        limit=1000, remaining=0, resets_at=until, refused_until=until, seen_at=SINCE
    )
    times = one(see("/status/"), "[data-state]").css("time")
    assert [time.attributes["datetime"] for time in times] == [SINCE.isoformat(), until.isoformat()]


def test_workers_are_alive_or_gone(see: See, db: None) -> None:
    factories.worker("here")
    factories.worker("gone", beat_at=SINCE)
    found = {
        words(one(row, "dt")): row.attributes["data-alive"]
        for row in see("/status/").css("[data-worker]")
    }
    assert found == {"here": "true", "gone": "false"}


def test_trouble_changes_the_tag(at_desk: Client, stage: Stage) -> None:
    tag = at_desk.get("/status/", headers=HTMX)["HX-PTag"]
    Stage.objects.update(error="x", error_message="No access.", error_since=SINCE)
    answer = at_desk.get("/status/", headers=HTMX | {"HX-PTag": tag})
    assert answer.status_code == 200
    assert "No access." in words(parsed(answer))


# --- what other pages say of it ----------------------------------------------------------------


@pytest.mark.parametrize("address", ["/", "/board/"])
def test_what_a_page_cannot_show_is_said_there(see: See, stage: Stage, address: str) -> None:
    assert see(address).css("[data-elsewhere]") == []
    factories.stage("Staging", error="x", error_message="No access.", error_since=SINCE)
    factories.stage("Development", promised_at=SINCE)
    factories.unlisted(stage.pipeline.project)
    told = one(see(address), "a[data-elsewhere]")
    assert told.attributes["href"] == "/status/"
    assert words(told) == (
        "1 of 3 stages is older than promised. 1 stage can’t be read. "
        "1 list of the catalogue can’t be read."
    )


def test_a_stage_that_is_late_makes_now_old_even_without_runs(see: See, stage: Stage) -> None:
    factories.run(stage)
    assert one(see("/"), "[data-as-of]").attributes["data-stale"] == "false"
    factories.stage("Staging", promised_at=SINCE)
    assert one(see("/"), "[data-as-of]").attributes["data-stale"] == "true"


def test_a_real_sync_keeps_its_promise(live: Live, viewer: User) -> None:
    live.sync()
    factories.worker()
    html = parsed(live.person("viewer").get("/status/"))
    assert "as fresh as promised" in words(one(html, "[data-state]"))
    assert html.css('tr[data-late="true"]') == []
    assert len(html.css("tr[data-stage]")) == 27


def test_push_is_told(see: See, settings: Settings) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET = []
    assert "not set up" in words(section(see, "push"))
    settings.NORTHFLANK_WEBHOOK_SECRET = ["s" * 32]
    assert "nothing has come" in words(section(see, "push"))
    Push.objects.create(pk=1, events=3, duplicates=1, heard_at=SINCE, rung_at=SINCE)
    said = section(see, "push")
    assert "announces changes" in words(said)
    assert "3, of which 1 came twice" in words(said)
    assert said.attributes["data-push"] == "alive"


def test_stages_without_a_release_flow_come_last_however_long_ago_they_were_read(
    see: See, stage: Stage
) -> None:
    old = timezone.now() - timedelta(hours=5)
    factories.stage("Development", of=stage.pipeline, has_flow=False, synced_at=old)
    assert places(see) == ["Checkout / Production", "Checkout / Development"]
