"""The page of a stage's usual durations, and overrides of them."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings

from dashboard.models import Run, Stage, StageTiming
from tests.support import factories
from tests.support.html import fetch_page, parse_html, select_one, text_of
from tests.support.world import LoggedEvents

OVERRIDE_FIELDS = (
    ("override_run_median", "override_run_p95"),
    ("override_queue_median", "override_queue_p95"),
    ("override_approval_median", "override_approval_p95"),
)


@pytest.fixture
def timing(run: Run) -> StageTiming:
    return factories.timing(
        run.stage,
        observed_steps={"migrate": [120, 240], "sign-off": [300, 1200]},
        approval_keys=["sign-off"],
        success_count=20,
        detail_count=5,
    )


def post_override(
    admin_client: Client,
    stage: Stage,
    median: str,
    p95: str,
    fields: tuple[str, str] = OVERRIDE_FIELDS[0],
) -> HttpResponse:
    data = dict(zip(fields, (median, p95), strict=True))
    return admin_client.post(address(stage), data)


def address(stage: Stage) -> str:
    return f"{factories.address(stage)}durations/"


def parts(client: Client, stage: Stage) -> dict[str, str]:
    """Return the texts of the parts of the page, by their titles."""
    fieldsets = fetch_page(client, address(stage)).css("main fieldset")
    return {text_of(select_one(part, "legend")): text_of(part) for part in fieldsets}


def test_page_shows_observed_durations_beside_overrides(
    admin_client: Client, timing: StageTiming
) -> None:
    shown = parts(admin_client, timing.stage)
    texts = {
        "Run duration": "usually 6 to 9 min",
        "Queue time": "usually 40 to 90 s",
        "Approval time": "sign-off: usually 5 to 20 min",
    }
    assert list(shown) == list(texts)
    assert [title for title, text in texts.items() if text not in shown[title]] == []
    page = text_of(select_one(fetch_page(admin_client, address(timing.stage)), "main"))
    assert page.endswith("Steps migrate: usually 2 to 4 min")


def test_page_without_baseline_reports_too_few_successes(admin_client: Client, run: Run) -> None:
    text = text_of(select_one(fetch_page(admin_client, address(run.stage)), "main"))
    assert text.count("too few successes so far") == 2
    assert text.count("none known") == 2


def test_override_is_kept_logged_and_cleared(
    admin_client: Client, timing: StageTiming, logged_events: LoggedEvents
) -> None:
    for median, kept in (("300", 300), ("", None)):
        answer = post_override(admin_client, timing.stage, median, "", OVERRIDE_FIELDS[1])
        assert (answer.status_code, answer["Location"]) == (303, address(timing.stage))
        timing.refresh_from_db()
        assert timing.override_queue_median == kept
        line = logged_events("stage_timing.overridden")[-1]
        assert (line["by"], line["override_queue_median"]) == ("root", kept)


def test_page_is_linked_for_superusers_and_open_to_them_only(
    superuser: User, viewer: User, stage: Stage
) -> None:
    for user in (superuser, viewer):
        client = Client()
        client.force_login(user)
        page = fetch_page(client, factories.address(stage))
        assert bool(page.css(f'a[href="{address(stage)}"]')) == user.is_superuser
        assert client.get(address(stage)).status_code == (200 if user.is_superuser else 403)


OVERRIDE_ROW_TEXTS = [
    (OVERRIDE_FIELDS[0], {}, "usually 6 to 9 min", "usually 20 to 30 min"),
    (
        OVERRIDE_FIELDS[1],
        {"status": "queued", "started_at": None},
        "usually waits 40 to 90 s",
        "usually waits 20 to 30 min",
    ),
    (OVERRIDE_FIELDS[2], {"status": "approval_wait"}, "", "usually approved in 20 to 30 min"),
]


@pytest.mark.parametrize(("fields", "observed", "before", "after"), OVERRIDE_ROW_TEXTS)
def test_override_is_shown_in_run_rows_at_once(
    fields: tuple[str, str],
    observed: dict[str, Any],
    before: str,
    after: str,
    admin_client: Client,
    timing: StageTiming,
    run: Run,
) -> None:
    factories.change(run, turn_since=run.created_at, **observed)

    def typical_texts() -> str:
        return " ".join(
            text_of(element) for element in fetch_page(admin_client, "/").css(".typical-duration")
        )

    assert typical_texts() == before
    post_override(admin_client, timing.stage, "1200", "1800", fields)
    assert typical_texts() == after


INVALID_OVERRIDES = [
    ("600", "300", "This cannot be shorter than the typical duration."),
    ("0", "", "Ensure this value is greater than or equal to 1."),
    ("-5", "", "Ensure this value is greater than or equal to 1."),
    ("60", "-5", "Ensure this value is greater than or equal to 1."),
    ("", "900", "Enter the typical duration first."),
    ("soon", "", "Enter a number."),
    ("soon", "900", "Enter a number."),
    ("1e300", "", "Ensure this value is less than or equal to 2592000."),
    ("nan", "", "Enter a number."),
    ("inf", "", "Enter a number."),
]


@pytest.mark.parametrize(("median", "p95", "reason"), INVALID_OVERRIDES)
def test_invalid_override_is_rejected_with_field_error(
    median: str,
    p95: str,
    reason: str,
    admin_client: Client,
    timing: StageTiming,
) -> None:
    answer = post_override(admin_client, timing.stage, median, p95)
    assert answer.status_code == 422
    assert [text_of(error) for error in parse_html(answer).css(".field-error")] == [reason]
    timing.refresh_from_db()
    assert timing.override_run_median is None


def test_override_for_stage_without_success_can_be_added(admin_client: Client, run: Run) -> None:
    assert post_override(admin_client, run.stage, "600", "900").status_code == 303
    assert (
        text_of(select_one(fetch_page(admin_client, "/"), ".typical-duration"))
        == "usually 10 to 15 min"
    )


def test_read_only_dashboard_shows_durations_and_takes_no_override(
    admin_client: Client, timing: StageTiming, settings: Settings
) -> None:
    settings.READ_ONLY = True
    html = fetch_page(admin_client, address(timing.stage))
    assert html.css("main fieldset:not([disabled]), main button") == []
    assert post_override(admin_client, timing.stage, "600", "900").status_code == 403
    timing.refresh_from_db()
    assert timing.override_run_median is None
