"""Overrides of typical durations in the admin."""

from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings
from selectolax.lexbor import LexborNode

from dashboard.models import Run, StageTiming
from tests.support import factories
from tests.support.html import fetch_page, field_errors, select_one, text_of

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
    timing: StageTiming,
    median: str,
    p95: str,
    fields: tuple[str, str] = OVERRIDE_FIELDS[0],
) -> HttpResponse:
    data = dict(zip(fields, (median, p95), strict=True))
    return admin_client.post(f"/admin/dashboard/stagetiming/{timing.pk}/change/", data)


def test_timing_form_shows_observed_durations_beside_overrides(
    admin_client: Client, timing: StageTiming
) -> None:
    html = fetch_page(admin_client, f"/admin/dashboard/stagetiming/{timing.pk}/change/")
    texts = {
        "Run duration": "usually 6 to 9 min",
        "Queue time": "usually 40 to 90 s",
        "Approval time": "sign-off: usually 5 to 20 min",
        "Other baselines": "migrate: usually 2 to 4 min",
    }
    parts = {
        text_of(select_one(part, "h2")): text_of(part)
        for part in html.css("#stagetiming_form fieldset")
        if part.css("h2")
    }
    assert list(parts) == list(texts)
    assert [part for part, text in texts.items() if text not in parts[part]] == []
    assert "sign-off" not in parts["Other baselines"]


def test_timing_form_without_baseline_reports_too_few_successes(
    admin_client: Client, run: Run
) -> None:
    timing = StageTiming.objects.create(stage=run.stage)
    text = text_of(
        select_one(
            fetch_page(admin_client, f"/admin/dashboard/stagetiming/{timing.pk}/change/"),
            "#stagetiming_form",
        )
    )
    assert text.count("too few successes so far") == 2
    assert text.count("none known") == 2


def test_timing_list_shows_typical_durations_and_override_flag(
    admin_client: Client, timing: StageTiming
) -> None:
    def row() -> LexborNode:
        return fetch_page(admin_client, "/admin/dashboard/stagetiming/").css(
            "#result_list tbody tr"
        )[0]

    assert text_of(select_one(row(), ".field-typical_run")) == "usually 6 to 9 min"
    assert text_of(select_one(row(), ".field-typical_queue")) == "usually 40 to 90 s"
    assert select_one(row(), ".field-has_override img").attributes["alt"] == "False"
    post_override(admin_client, timing, "300", "", fields=OVERRIDE_FIELDS[1])
    assert text_of(select_one(row(), ".field-typical_queue")) == "usually about 5 min"
    assert select_one(row(), ".field-has_override img").attributes["alt"] == "True"


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
    factories.change(run, **observed)

    def typical_texts() -> str:
        return " ".join(
            text_of(element) for element in fetch_page(admin_client, "/").css(".typical-duration")
        )

    assert typical_texts() == before
    post_override(admin_client, timing, "1200", "1800", fields)
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
    answer = post_override(admin_client, timing, median, p95)
    assert answer.status_code == 200
    assert field_errors(answer) == [reason]
    timing.refresh_from_db()
    assert not timing.has_override


def test_override_for_stage_without_success_can_be_added(admin_client: Client, run: Run) -> None:
    data = {"stage": run.stage_id, "override_run_median": "600", "override_run_p95": "900"}
    assert admin_client.post("/admin/dashboard/stagetiming/add/", data).status_code == 302
    assert (
        text_of(select_one(fetch_page(admin_client, "/"), ".typical-duration"))
        == "usually 10 to 15 min"
    )


def test_timing_delete_is_forbidden(admin_client: Client, timing: StageTiming) -> None:
    address = f"/admin/dashboard/stagetiming/{timing.pk}/delete/"
    assert admin_client.post(address, {"post": "yes"}).status_code == 403


def test_read_only_dashboard_shows_timings_and_takes_no_override(
    admin_client: Client, timing: StageTiming, settings: Settings
) -> None:
    settings.READ_ONLY = True
    address = f"/admin/dashboard/stagetiming/{timing.pk}/change/"
    html = fetch_page(admin_client, address)
    assert html.css("#stagetiming_form input:not([type=hidden])") == []
    assert post_override(admin_client, timing, "600", "900").status_code == 403
    assert admin_client.post("/admin/dashboard/stagetiming/add/").status_code == 403
    timing.refresh_from_db()
    assert not timing.has_override
