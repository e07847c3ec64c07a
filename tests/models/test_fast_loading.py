"""Instances that are created from rows without `__init__` equal those of Django."""

from inspect import getattr_static
from typing import Any

import pytest
from django.apps import apps
from django.db import models
from django.db.models.fields.related_descriptors import ForeignKeyDeferredAttribute
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_init, pre_init

from dashboard.models import Abort, Run, Stage
from dashboard.models.fast_loading import FastLoading
from tests.support import factories

pytestmark = pytest.mark.django_db

LOADED: list[type[models.Model]] = [
    model for model in apps.get_models() if issubclass(model, FastLoading)
]
# What Model.from_db of Django does with the same row.
django_from_db: Any = models.Model.__dict__["from_db"].__func__


def state(instance: models.Model) -> dict[str, object]:
    # Django's assignment of foreign keys creates the cache of their rows, which is empty.
    return {**vars(instance), "_state": {"fields_cache": {}, **vars(instance._state)}}


def attribute_names(model: type[models.Model]) -> list[str]:
    return [field.attname for field in model._meta.concrete_fields]


@pytest.mark.parametrize("model", LOADED)
def test_loaded_instance_equals_one_of_django(model: type[models.Model]) -> None:
    names = attribute_names(model)
    values = [f"value of {name}" for name in names]
    for count in (len(names), 2):  # the others are deferred
        row = names[:count], values[:count]
        loaded = model.from_db("default", *row)
        assert state(loaded) == state(django_from_db(model, "default", *row))
        peers = model.from_db("default", *row, fetch_mode=models.FETCH_PEERS)
        expected = django_from_db(model, "default", *row, fetch_mode=models.FETCH_PEERS)
        assert state(peers) == state(expected)
        assert loaded.get_deferred_fields() == set(names[count:])


@pytest.mark.parametrize("model", LOADED)
def test_no_field_of_model_reacts_to_its_assignment(model: type[models.Model]) -> None:
    descriptors = {type(getattr_static(model, name)) for name in attribute_names(model)}
    assert descriptors <= {DeferredAttribute, ForeignKeyDeferredAttribute}
    assert model.__init__ is models.Model.__init__
    assert not pre_init.has_listeners(model)
    assert not post_init.has_listeners(model)


def test_models_of_pages_are_among_them() -> None:
    assert {Run, Stage, Abort} <= set(LOADED)


def test_peers_get_their_deferred_fields_together(django_assert_num_queries: Any) -> None:
    stage = factories.stage()
    for name in ("one", "two"):
        factories.run(stage, name=name)
    with django_assert_num_queries(2):
        runs = Run.objects.only("status").fetch_mode(models.FETCH_PEERS)
        assert {run.name for run in runs} == {"one", "two"}


def test_deferred_field_is_loaded_when_it_is_used(django_assert_num_queries: Any) -> None:
    factories.run(factories.stage())
    run = Run.objects.only("status", "stage").select_related("stage").get()
    with django_assert_num_queries(0):
        assert (run.status, run.stage.name) == ("running", "Production")
    with django_assert_num_queries(1):
        assert run.name
