"""Queries that are composed once: the same results as the ORM's, in any thread."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections
from django.db.models import BigIntegerField, TextField
from django.test.utils import CaptureQueriesContext

from dashboard.db.prepared import Keys, Parameter, PreparedCount, PreparedModels, PreparedQuery
from dashboard.models import Run
from tests.support import factories

STAGE = Parameter("stage", BigIntegerField())


@pytest.fixture
def runs(db: None) -> list[Run]:
    stage = factories.stage()
    return [factories.run(stage, name=name) for name in ("100 %", "it's", "%s", '{"a": 1}')]


def test_models_have_the_fields_and_related_objects_of_the_queryset(runs: list[Run]) -> None:
    queryset = Run.objects.filter(stage=STAGE).order_by("pk")
    query = PreparedModels(queryset.select_related("stage__pipeline__project").defer("steps"))
    found = query.fetch(stage=runs[0].stage_id)
    assert found == runs
    with CaptureQueriesContext(connections["default"]) as queries:
        names = [(run.name, run.stage.pipeline.project.slug, run.created_at) for run in found]
    assert not queries.captured_queries
    assert names == [(run.name, "shop", run.created_at) for run in runs]
    assert found[0].get_deferred_fields() == {"steps"}


def test_models_for_other_parameters_are_none(runs: list[Run]) -> None:
    query = PreparedModels(Run.objects.filter(stage=STAGE))
    assert query.fetch(stage=0) == []
    assert len(query.fetch(stage=runs[0].stage_id)) == len(runs)


def test_models_of_an_impossible_condition_are_none(runs: list[Run]) -> None:
    assert PreparedModels(Run.objects.filter(pk__in=[])).fetch() == []


def test_each_fetch_returns_its_own_instances(runs: list[Run]) -> None:
    query = PreparedModels(Run.objects.filter(pk__in=Keys("runs")))
    first, second = (query.fetch(runs=[runs[0].pk])[0] for _ in range(2))
    first.name = "changed"
    assert second.name == runs[0].name


@pytest.mark.parametrize("count", [0, 1, 3])
def test_keys_select_as_many_rows_as_are_given(runs: list[Run], count: int) -> None:
    query = PreparedQuery(Run.objects.filter(pk__in=Keys("runs")).order_by("pk").values_list("pk"))
    keys = [run.pk for run in runs[:count]]
    assert [pk for (pk,) in query.fetch(runs=keys)] == keys


def test_text_parameter_is_compared_as_it_is(runs: list[Run]) -> None:
    query = PreparedModels(Run.objects.filter(name=Parameter("name", TextField())))
    for run in runs:
        assert query.fetch(name=run.name) == [run]
    assert query.fetch(name="' OR 1=1 --") == []


def test_count_stops_at_the_limit_of_the_queryset(runs: list[Run]) -> None:
    selected = Run.objects.filter(stage=STAGE).values_list("pk")
    stage = runs[0].stage_id
    assert PreparedCount(selected[:2]).fetch(stage=stage) == 2
    assert PreparedCount(selected[:9]).fetch(stage=stage) == len(runs)


def test_query_composed_in_one_thread_is_fetched_in_another(transactional_db: None) -> None:
    run = factories.run(factories.stage())
    query = PreparedModels(Run.objects.filter(pk__in=Keys("runs")).select_related("stage"))

    def fetch() -> str:
        try:
            return query.fetch(runs=[run.pk])[0].stage.name
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(fetch).result() == run.stage.name
