"""Queries and updates that are composed once: the same results as the ORM's, in any thread."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connections, transaction
from django.db.models import BigIntegerField, Case, F, TextField, When
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.db.prepared import (
    NOW,
    Keys,
    Parameter,
    PreparedInsert,
    PreparedModels,
    PreparedQuery,
    PreparedUpdate,
    parameters,
    update_row,
)
from dashboard.models import Abort, AbortEvent, Run, Stage
from tests.support import factories

STAGE = Parameter("stage", BigIntegerField())
RUN = Parameter("run", BigIntegerField())


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


STEPS = {"kind": "Workflow", "label": "100 % of “it's”", "steps": []}


def test_update_sets_the_fields_of_the_selected_rows_only(runs: list[Run]) -> None:
    others = Run.objects.filter(stage=STAGE).exclude(name="it's")
    update = PreparedUpdate(
        others, **parameters(Run, ["name", "steps", "concluded", "concluded_at"])
    )
    at = timezone.now()
    values = {"name": "100 %s", "steps": STEPS, "concluded": True, "concluded_at": at}
    assert update.execute(stage=runs[0].stage_id, **values) == 3
    assert update.execute(stage=0, **values) == 0
    by_name = {run.name: run for run in Run.objects.all()}
    assert set(by_name) == {"100 %s", "it's"}
    changed, unchanged = by_name["100 %s"], by_name["it's"]
    assert (changed.steps, changed.concluded, changed.concluded_at) == (STEPS, True, at)
    assert (unchanged.steps, unchanged.concluded, unchanged.concluded_at) == (None, False, None)


def test_update_returns_fields_as_updated(runs: list[Run]) -> None:
    update = PreparedUpdate(
        Run.objects.filter(pk=RUN),
        returning=["name", "in_flight", "started_at"],
        **parameters(Run, ["name", "started_at"]),
    )
    at = timezone.now()
    returned = update.fetch(run=runs[0].pk, name="new", started_at=at)
    assert returned == [("new", True, at)]
    assert returned[0][1] is True
    assert update.fetch(run=0, name="new", started_at=at) == []


def test_inserted_instances_are_as_given_and_have_their_keys(
    runs: list[Run], manager: User
) -> None:
    at = timezone.now()
    abort = Abort(
        run=runs[0], user=manager, username="it's 100 %s", client_address="2001:db8::1",
        requested_at=at, claimed_at=at,
    )  # fmt: skip
    PreparedInsert(Abort).execute(abort)
    events = [AbortEvent(abort=abort, event_type=kind, occurred_at=at) for kind in ("sent", "lost")]
    PreparedInsert(AbortEvent).execute(*events)
    stored = Abort.objects.get()
    fields = [field.attname for field in Abort._meta.concrete_fields]
    assert [getattr(stored, name) for name in fields] == [getattr(abort, name) for name in fields]
    assert [(event.pk, event.event_type) for event in stored.events.all()] == [
        (event.pk, event.event_type) for event in events
    ]


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


def test_update_may_use_a_row_and_a_time_after_the_parameter(runs: list[Run]) -> None:
    minute = timedelta(minutes=1)
    is_read = Case(When(synced_at__lt=NOW, then=F("synced_at")), default=NOW + minute)
    update = PreparedUpdate(Run.objects.filter(pk=RUN), next_detail_sync_at=is_read)
    run = runs[0]
    update.execute(run=run.pk, now=run.synced_at)
    run.refresh_from_db()
    assert run.next_detail_sync_at == run.synced_at + minute
    update.execute(run=run.pk, now=run.synced_at + minute)
    run.refresh_from_db()
    assert run.next_detail_sync_at == run.synced_at


def test_update_of_a_row_stores_values_of_every_type(runs: list[Run]) -> None:
    stage = runs[0].stage
    fields = {
        "has_flow": True, "synced_at": None, "failures": 3, "error": "it's 100 %",
        "fresh_until": runs[0].synced_at,
    }  # fmt: skip
    update_row(Stage, stage.pk, **fields)
    stage.refresh_from_db()
    assert {name: getattr(stage, name) for name in fields} == fields
    update_row(Run, runs[0].pk, steps={"kind": "workflow"}, concluded=True)
    update_row(Run, runs[1].pk, steps=None, concluded=False)
    first, second, *others = Run.objects.order_by("pk")
    assert (first.steps, first.concluded) == ({"kind": "workflow"}, True)
    assert (second.steps, second.concluded) == (None, False)
    assert [run.steps for run in others] == [run.steps for run in runs[2:]]


def test_update_that_fails_rolls_its_transaction_back(runs: list[Run]) -> None:
    with transaction.atomic():
        with pytest.raises(IntegrityError):
            update_row(Run, runs[0].pk, name=None)
        assert transaction.get_rollback()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_texts_select_as_many_rows_as_are_given(runs: list[Run], count: int) -> None:
    named = Run.objects.filter(name__in=Keys("names", TextField())).order_by("pk")
    query = PreparedQuery(named.values_list("pk"))
    assert [pk for (pk,) in query.fetch(names=[run.name for run in runs[:count]])] == [
        run.pk for run in runs[:count]
    ]
