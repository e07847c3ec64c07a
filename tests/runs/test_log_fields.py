"""The fields of an event that lead from an alert to its run."""

import pytest
from django.test.utils import override_script_prefix
from pytest_django import Settings

from dashboard.models import Run
from dashboard.runs.log_fields import run_fields
from tests.support import factories


@pytest.fixture
def run(db: None) -> Run:
    pipeline = factories.pipeline("check/out", factories.project("shop"))
    return factories.run(factories.stage("Production", pipeline), "a b%2F")


PATH = "/projects/shop/pipelines/check%252Fout/release-flows/production/runs/a%20b%25252F/"


def test_run_is_named_by_id_place_and_path(run: Run) -> None:
    assert run_fields(run) == {
        "run": "a b%2F",
        "project": "shop",
        "pipeline": "check/out",
        "stage": "Production",
        "url": PATH,
    }


def test_address_begins_with_base_url_and_its_path_once(run: Run, settings: Settings) -> None:
    settings.BASE_URL, settings.FORCE_SCRIPT_NAME = "https://example.com/releases", "/releases"
    with override_script_prefix("/releases/"):
        assert run_fields(run)["url"] == f"https://example.com/releases{PATH}"
