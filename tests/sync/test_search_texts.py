"""What runs are found by follows the mirror."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from dashboard.models import Run, SearchText, Stage
from dashboard.models.search_texts import position
from dashboard.runs import search
from dashboard.sync import mirror, pruning
from tests.support.world import ENDED, api_run, at, detail, get_run, mirror_list, request_fields


@pytest.fixture(autouse=True)
def _complete_texts(stage: Stage) -> Iterator[None]:
    """Compare what was stored with what the runs have, at the end of each test."""
    yield
    stored = sorted(SearchText.objects.values_list("run", "position", "text"))
    runs = Run.objects.all()
    assert stored == sorted((run.pk, position(run), search.texts_of(run)) for run in runs)


def texts() -> list[str]:
    """Return the stored texts, of the newest run first."""
    return list(SearchText.objects.order_by("-position").values_list("text", flat=True))


def test_listed_runs_get_their_texts_in_the_order_of_their_creation(stage: Stage) -> None:
    old = api_run("r2", name="Größe É", description="To PROD", created_at=at(-90))
    mirror_list(stage, old, api_run("r1"))
    assert texts() == ["nightly\nr1", "grosse e\nr2\nto prod"]


def test_new_title_and_time_of_creation_are_stored(stage: Stage) -> None:
    mirror_list(stage, api_run("r1"), api_run("r2"))
    mirror_list(stage, api_run("r1", name="New", created_at=at(-90)), requested_at=1)
    assert texts() == ["nightly\nr2", "new\nr1"]


def test_current_step_is_stored_until_the_run_ends(stage: Stage) -> None:
    mirror.apply_detail(stage.pk, detail(), **request_fields(0))
    assert texts() == ["nightly\nr1\nbuild"]
    mirror_list(stage, api_run(name="New"), requested_at=1)
    assert texts() == ["new\nr1\nbuild"]
    mirror.apply_detail(stage.pk, detail(name="New", **ENDED), **request_fields(2))
    assert texts() == ["new\nr1"]


def test_other_changes_write_no_text(stage: Stage) -> None:
    mirror.apply_detail(stage.pk, detail(), **request_fields(0))
    with CaptureQueriesContext(connection) as queries:
        mirror_list(stage, api_run(status="aborting"), requested_at=1)
        mirror.apply_detail(stage.pk, detail(status="aborting"), **request_fields(2))
    assert not [q for q in queries.captured_queries if "searchtext" in q["sql"]]


def test_pruned_run_leaves_no_text(stage: Stage) -> None:
    mirror_list(stage, api_run(**ENDED))
    pruning.delete_runs({get_run().pk: stage.pk}, at(0) + timedelta(days=1))
    assert not texts()


def test_run_that_is_in_flight_again_is_not_pruned_and_keeps_its_text(stage: Stage) -> None:
    mirror_list(stage, api_run())
    pruning.delete_runs({get_run().pk: stage.pk}, at(0) + timedelta(days=1))
    assert texts() == ["nightly\nr1"]


@pytest.mark.parametrize("year", [1, 1969, 9999])
def test_any_time_of_creation_gives_a_position(stage: Stage, year: int) -> None:
    mirror_list(stage, api_run(created_at=at(0).replace(year=year)))
    assert len(texts()) == 1
