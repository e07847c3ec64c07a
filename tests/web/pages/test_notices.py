"""The rules of notices, their form and their tests, for administrators."""

from datetime import time

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from dashboard.models import NoticeMessage, NoticeRule, RightsChange
from dashboard.models.notices import NoticeEvent
from tests.support import factories
from tests.support.html import HTMX, parse_html, select_one, text_of
from tests.support.people import client_of

NEW = "/notices/"


@pytest.fixture(autouse=True)
def channels(settings: Settings) -> dict[str, str]:
    settings.NOTIFY_URLS = {"oncall": "json://secret@oncall", "releases": "json://releases"}
    return settings.NOTIFY_URLS


@pytest.fixture
def root_client(db: None) -> Client:
    return client_of(User.objects.create_superuser("root"))


@pytest.fixture
def rule(db: None) -> NoticeRule:
    return NoticeRule.objects.create(
        channel="oncall",
        events=["failed", "overdue"],
        project=factories.project(name="Shop"),
        stage="Production",
        quiet_from=time(22),
        quiet_until=time(7),
        created_at=timezone.now(),
    )


def url(rule: NoticeRule, rest: str = "") -> str:
    return f"/notices/{rule.pk}/{rest}"


def filled_form(client: Client, rule: NoticeRule) -> dict[str, object]:
    """Return what the form of a rule sends if nothing is changed."""
    html = parse_html(client.get(url(rule)))
    form: dict[str, object] = {
        field.attributes["name"]: field.attributes["value"] or ""
        for field in html.css("form.stack input:not([type=checkbox])")
    }
    for field in html.css("form.stack select"):
        form[field.attributes["name"]] = select_one(field, "[selected]").attributes["value"]
    boxes = html.css("input[name=events][checked]")
    return form | {"events": [box.attributes["value"] for box in boxes]}


def test_rule_is_added_and_recorded(root_client: Client) -> None:
    shop = factories.project("shop")
    fields = {"channel": "oncall", "project": shop.pk, "stage": "", "events": ["failed", "overdue"]}
    answer = root_client.post(NEW, fields)
    assert (answer.status_code, answer["Location"]) == (303, "/notices/")
    rule = NoticeRule.objects.get()
    assert (rule.channel, rule.project.slug, rule.stage) == ("oncall", "shop", "")
    change = RightsChange.objects.get()
    assert (change.subject, change.before, change.changed_by) == ("oncall", None, "root")
    state = {"name": "oncall", "events": ["failed", "overdue"], "project": "shop"}
    assert change.after == state | {"stage": "", "quiet": ""}


def test_form_sends_the_rule_as_it_is(root_client: Client, rule: NoticeRule) -> None:
    assert root_client.post(url(rule), filled_form(root_client, rule)).status_code == 303
    assert not RightsChange.objects.exists()  # nothing has changed


def test_change_shows_before_and_after_in_the_log(root_client: Client, rule: NoticeRule) -> None:
    form = filled_form(root_client, rule) | {"channel": "releases", "events": ["failed"]}
    assert (
        root_client.post(url(rule), form | {"stage": "", "quiet_from": "21:30"}).status_code == 303
    )
    html = parse_html(root_client.get("/people/changes/?name=releases"))
    row = select_one(html, "[data-rights-change=notice]")
    assert text_of(select_one(row, "a")) == "Notice rule releases"
    assert [text_of(item) for item in row.css(".differences li")] == [
        "− Removed: Production of project “shop”",
        "− Removed: channel “oncall”",
        "− Removed: quiet hours 22:00–07:00",
        "− Removed: tells of: Overdue",
        "+ Added: channel “releases”",
        "+ Added: project “shop”",
        "+ Added: quiet hours 21:30–07:00",
    ]
    subject = parse_html(root_client.get(f"/people/changes/?subject=notice-{rule.pk}"))
    assert len(subject.css("[data-rights-change]")) == 1


def test_rule_is_deleted_and_recorded(root_client: Client, rule: NoticeRule) -> None:
    form = filled_form(root_client, rule) | {"action": "delete", "events": []}
    assert root_client.post(url(rule), form)["Location"] == "/notices/"
    assert not NoticeRule.objects.exists()
    assert RightsChange.objects.get().after is None
    assert root_client.post(url(rule), form).status_code == 404


@pytest.mark.parametrize("action", ["save", "delete"])
def test_form_that_another_administrator_overtook_changes_nothing(
    root_client: Client, rule: NoticeRule, action: str
) -> None:
    form = filled_form(root_client, rule)
    other = client_of(User.objects.create_superuser("other"))
    assert other.post(url(rule), form | {"stage": "Staging"}).status_code == 303
    answer = root_client.post(url(rule), form | {"events": ["approval"], "action": action})
    assert answer.status_code == 409
    rule.refresh_from_db()
    assert (rule.stage, rule.events) == ("Staging", ["overdue", "failed"])
    # The form shows what the other one has saved, and sends it.
    html = parse_html(answer)
    assert select_one(html, "#stage [selected]").attributes["value"] == "Staging"
    version = select_one(html, "input[name=version]").attributes["value"]
    assert root_client.post(url(rule), form | {"version": version}).status_code == 303


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"events": []}, "Choose at least one event."),
        ({"quiet_until": ""}, "Enter both times, or none."),
        ({"quiet_until": "22:00"}, "Quiet hours cannot end when they begin."),
        ({"quiet_from": "25:00"}, "Enter a valid time."),
        ({"channel": "json://x"}, "Choose from the list."),
        ({"project": "nope"}, "Choose from the list."),
        ({"stage": "Nowhere"}, "Choose from the list."),
        ({"events": ["nonsense"]}, "Choose from the list."),
    ],
)
def test_invalid_rule_is_not_saved_and_stays_in_the_form(
    root_client: Client, rule: NoticeRule, fields: dict[str, object], error: str
) -> None:
    form = (
        filled_form(root_client, rule) | {"events": ["run_ended"], "quiet_from": "22:00"} | fields
    )
    answer = root_client.post(url(rule), form)
    html = parse_html(answer)
    errors = [text_of(text) for text in html.css(".field-error")]
    assert (answer.status_code, errors) == (422, [error])
    shown = [box.attributes["value"] for box in html.css("input[name=events][checked]")]
    assert shown == [event for event in form["events"] if event in NoticeEvent.values]
    assert select_one(html, "#quiet_from").attributes["value"] == form["quiet_from"]
    rule.refresh_from_db()
    assert rule.events == ["failed", "overdue"]


def test_rule_outlives_its_project_and_its_channel(
    root_client: Client, rule: NoticeRule, settings: Settings
) -> None:
    settings.NOTIFY_URLS = {"releases": "json://releases"}
    rule.events = ["failed", "of_a_newer_version"]
    rule.save()
    rule.project.removed_at = timezone.now()
    rule.project.save()
    row = select_one(parse_html(root_client.get("/notices/")), "[data-rule]")
    warnings = [text_of(warning) for warning in row.css(".inline-notice")]
    assert warnings == [
        "Not in NOTIFY_URLS: nothing is sent.",
        "Northflank no longer lists this project.",
    ]
    assert not row.css("button")
    form = filled_form(root_client, rule) | {"stage": ""}
    assert root_client.post(url(rule), form).status_code == 303
    rule.refresh_from_db()
    assert (rule.channel, rule.project.slug, rule.stage) == ("oncall", "shop", "")
    answer = root_client.post(url(rule, "test/"))
    assert answer.status_code == 422
    assert not NoticeMessage.objects.exists()


def test_only_administrators_see_and_change_notices(viewer: User, rule: NoticeRule) -> None:
    client = client_of(viewer)
    for address in (NEW, url(rule)):
        assert client.get(address).status_code == 403
    for address in (NEW, url(rule), url(rule, "test/")):
        assert client.post(address).status_code == 403
    assert not NoticeMessage.objects.exists()


def test_read_only_refuses_changes_and_tests(
    root_client: Client, rule: NoticeRule, settings: Settings
) -> None:
    form = filled_form(root_client, rule)
    settings.READ_ONLY = True
    for address in ("/notices/", url(rule)):
        html = parse_html(root_client.get(address))
        assert text_of(select_one(html, "main [data-reason]")) == "This dashboard is read-only."
        assert not html.css("main button")
    for address, fields in {
        url(rule): form | {"stage": ""},
        NEW: form,
        url(rule, "test/"): {},
    }.items():
        answer = root_client.post(address, fields)
        assert answer.status_code == 403
        reason = select_one(parse_html(answer), "[data-reason]")
        assert text_of(reason) == "This dashboard is read-only."
    deletion = root_client.post(url(rule), form | {"action": "delete"})
    assert deletion.status_code == 403
    assert not NoticeMessage.objects.exists()
    assert NoticeRule.objects.get().stage == "Production"


def test_without_channels_the_page_says_how_to_add_one(
    root_client: Client, settings: Settings
) -> None:
    settings.NOTIFY_URLS = {}
    html = parse_html(root_client.get("/notices/"))
    assert text_of(select_one(html, "[data-no-channel]")).startswith("There is no channel")
    assert not html.css("main form")


# --- Tests ----------------------------------------------------------------------------------------


def test_pressing_send_a_test_stores_one_and_says_what_came_of_it(
    root_client: Client, rule: NoticeRule
) -> None:
    answer = root_client.post(url(rule, "test/"))
    message = NoticeMessage.objects.get()
    assert (message.channel, message.event, message.run) == ("oncall", "", None)
    assert list(NoticeMessage.objects.due(timezone.now())) == [message]
    assert (answer.status_code, answer["Location"]) == (303, f"/notices/?test={message.pk}")

    def shown() -> tuple[str, str, bool]:
        html = parse_html(root_client.get(answer["Location"]))
        box = select_one(html, "[data-test]")
        # With JavaScript the box alone is asked for.
        part = parse_html(root_client.get(answer["Location"], headers=HTMX))
        assert select_one(part, "body > [data-test]").html == box.html
        return box.attributes["data-tone"], text_of(box), "hx-get" in box.attributes

    assert shown() == (
        "warning",
        "Test of “oncall”: not sent yet, since no sync worker is running.",
        True,
    )
    factories.leader()
    assert shown() == ("info", "Test of “oncall”: about to be sent.", True)
    message.attempts, message.error = 1, "Refused (404)."
    message.next_try_at = None
    message.save()
    assert shown() == ("bad", "Test of “oncall”: failed. Refused (404).", False)
    assert "Refused (404)." in channel_text(root_client, "oncall")
    message.sent_at = timezone.now()
    message.save()
    tone, text, is_asked_again = shown()
    assert (tone, is_asked_again) == ("good", False)
    assert text.startswith("Test of “oncall”: sent at ")
    assert "Refused" not in channel_text(root_client, "oncall")
    assert channel_text(root_client, "releases") == "releases nothing sent in the last 30 days"


def channel_text(client: Client, name: str) -> str:
    html = parse_html(client.get("/notices/"))
    return text_of(select_one(html, f"[data-channel={name}]"))


@pytest.mark.parametrize("key", ["0", "x", "9" * 30, ""])
def test_unknown_test_is_ignored(root_client: Client, key: str) -> None:
    html = parse_html(root_client.get(f"/notices/?test={key}"))
    assert not html.css("[data-test]")


def test_no_page_shows_the_address_of_a_channel(root_client: Client, rule: NoticeRule) -> None:
    for address in (NEW, url(rule)):
        assert "secret" not in root_client.get(address).content.decode()
