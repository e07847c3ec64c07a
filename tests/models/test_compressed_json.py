"""Steps in the database: their size, and values that other versions have stored."""

import base64
import zlib
from pathlib import Path

import msgspec
import pytest
from django.core.management import call_command
from django.db import connection

from dashboard.models import Run
from dashboard.runs import steps
from tests.support import factories

pytestmark = pytest.mark.django_db

_ROOT = factories.node(
    "Workflow",
    steps=(factories.node("Build", ref="build-api"), factories.node("Release", ref="api")),
)
STEPS = msgspec.json.decode(msgspec.json.encode(_ROOT))
# STEPS as the first version with a dictionary has stored them: another dictionary cannot read it.
FIRST_STORED = "eLvDP/BiqyYuZSdBIw+mDzlG6JWioTbA4wXCp0tqBXtfN7EgU2nkBQkN0+RogJIVoBQbAABxcmw+"


def stored(run: Run) -> bytes:
    with connection.cursor() as cursor:
        cursor.execute("SELECT steps FROM dashboard_run WHERE id = %s", [run.pk])
        return bytes(cursor.fetchone()[0])


def store(run: Run, value: bytes) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE dashboard_run SET steps = %s WHERE id = %s", [value, run.pk])


def test_steps_stored_are_read_unchanged() -> None:
    run = factories.run(factories.stage(), steps=STEPS)
    assert Run.objects.get(pk=run.pk).steps == STEPS


def test_steps_of_usual_run_are_stored_in_a_sixth_of_their_json() -> None:
    run = factories.run(factories.stage(), steps=STEPS)
    assert len(stored(run)) * 6 < len(msgspec.json.encode(STEPS))


def test_steps_stored_without_dictionary_are_read() -> None:
    run = factories.run(factories.stage())
    store(run, zlib.compress(msgspec.json.encode(STEPS)))
    assert Run.objects.get(pk=run.pk).steps == STEPS


def test_steps_stored_when_dictionary_was_introduced_are_read() -> None:
    run = factories.run(factories.stage())
    store(run, base64.b64decode(FIRST_STORED))
    assert steps.decode(Run.objects.get(pk=run.pk).steps) == _ROOT  # without later fields


def test_steps_are_dumped_as_json_and_loaded(tmp_path: Path) -> None:
    run = factories.run(factories.stage(), steps=STEPS)
    call_command("dumpdata", "dashboard", output=str(tmp_path / "dump.json"))
    Run.objects.update(steps=None)
    call_command("loaddata", str(tmp_path / "dump.json"), verbosity=0)
    assert Run.objects.get(pk=run.pk).steps == STEPS
