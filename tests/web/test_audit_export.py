"""The audit for download: every act with all its facts, as the page is filtered."""

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.models import Abort
from dashboard.models.aborts import What
from dashboard.web.components import abort_log
from dashboard.web.pages import aborts_export
from tests.support import factories
from tests.support.abort_kinds import EACH_KIND, NOON
from tests.support.factories import HOSTILE
from tests.support.html import See
from tests.support.live import Live


def exported(person: httpx.Client, query: str = "") -> list[dict[str, Any]]:
    answer = person.get(f"/aborts/export.json?{query}")
    assert answer.status_code == 200, answer.text
    told: list[dict[str, Any]] = json.loads(answer.text)
    return told


def exported_rows(person: httpx.Client, query: str = "") -> list[dict[str, str]]:
    answer = person.get(f"/aborts/export.csv?{query}")
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text, newline=""), strict=True))


@pytest.fixture
def auditor(live: Live, manager: User) -> httpx.Client:
    return live.person("manager")


def test_an_export_tells_all_facts_of_an_act(auditor: httpx.Client, manager: User) -> None:
    run = factories.run(factories.stage(), "r-1", name="Nightly", status="aborted")
    abort = factories.abort(
        run, manager, **EACH_KIND["aborted"], reason="Stuck", client_address="192.0.2.7",
        via="api", token_name="PagerDuty", sent_at=NOON, answered_at=NOON, answer_status=200,
    )  # fmt: skip
    abort.note(What.REQUESTED, NOON)
    abort.note(What.CONCLUDED, NOON, detail="aborted")
    facts = {
        "id": abort.pk,
        "requested_at": "2026-03-31T12:00:00.000+00:00",
        "who": "manager",
        "via": "api",
        "token": "PagerDuty",
        "address": "192.0.2.7",
        "reason": "Stuck",
        "project": "shop",
        "pipeline": "checkout",
        "stage": "Production",
        "run_id": "r-1",
        "run_name": "Nightly",
        "run_url": f"{str(auditor.base_url).rstrip('/')}{factories.address(run)}",
        "state": "aborted",
        "sent_at": "2026-03-31T12:00:00.000+00:00",
        "sendings": 0,
        "answered_at": "2026-03-31T12:00:00.000+00:00",
        "answer_status": 200,
        "answer": "",
        "error_id": "",
        "outcome": "aborted",
        "settled_at": "2026-03-31T12:00:41.000+00:00",
        "seconds": 41.0,
        "story": "Aborted after 41 s.",
        "retry_of": None,
        "batch": None,
    }
    at = "2026-03-31T12:00:00.000+00:00"
    trail = [
        {"at": at, "what": "requested", "detail": "", "text": "Requested by manager: “Stuck”."},
        {"at": at, "what": "concluded", "detail": "aborted",
         "text": "The run concluded as aborted."},
    ]  # fmt: skip
    assert exported(auditor) == [{**facts, "trail": trail}]
    assert exported_rows(auditor) == [
        {name: "" if value is None else str(value) for name, value in facts.items()}
    ]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_an_export_has_every_act_however_many_are_read_at_once(
    count: int, live: Live, manager: User
) -> None:
    keys = [factories.act(manager).pk for _ in range(count)][::-1]
    everything = abort_log.AuditFilter(where=abort_log.Q())

    async def whole(written: AsyncIterator[bytes]) -> str:
        return b"".join([part async for part in written]).decode()

    array = live.run(lambda: whole(aborts_export.as_json(everything, "", at_once=3)))
    assert [each["id"] for each in json.loads(array)] == keys
    table = live.run(lambda: whole(aborts_export.as_csv(everything, "", at_once=3)))
    rows = csv.DictReader(io.StringIO(table, newline=""), strict=True)
    assert [int(each["id"]) for each in rows] == keys


def test_an_export_of_nothing_still_has_its_names(auditor: httpx.Client) -> None:
    assert auditor.get("/aborts/export.csv").text == ",".join(aborts_export.COLUMNS) + "\r\n"
    assert auditor.get("/aborts/export.json").text == "[]\n"


def test_an_export_is_filtered_as_the_page(auditor: httpx.Client, manager: User) -> None:
    acts = {kind: factories.act(manager, **fields).pk for kind, fields in EACH_KIND.items()}
    for kind, key in acts.items():
        assert [(each["id"], each["state"]) for each in exported(auditor, f"state={kind}")] == [
            (key, kind)
        ]


def test_the_page_leads_to_the_export_of_what_it_shows(see: See, manager: User) -> None:
    factories.act(manager)
    links = [urlsplit(link.attributes["href"] or "") for link in
             see("/aborts/?who=man&state=under_way&before=7&text=").css(".exports a")]  # fmt: skip
    assert [link.path for link in links] == ["/aborts/export.csv", "/aborts/export.json"]
    assert [parse_qs(link.query) for link in links] == [
        {"who": ["man"], "state": ["under_way"]}
    ] * 2


@pytest.mark.parametrize("query", ["state=nope", "from=x", "stat=refused"])
def test_an_export_that_cannot_be_as_asked_is_refused(query: str, auditor: httpx.Client) -> None:
    answer = auditor.get(f"/aborts/export.csv?{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")
    assert "“" in answer.text


@pytest.mark.parametrize(
    ("ending", "content_type"), [("csv", "text/csv; charset=utf-8"), ("json", "application/json")]
)
def test_an_export_is_a_file_with_its_day_that_is_not_kept(
    ending: str, content_type: str, auditor: httpx.Client
) -> None:
    answer = auditor.get(f"/aborts/export.{ending}")
    assert answer.headers["content-type"] == content_type
    assert answer.headers["cache-control"] == "no-store"
    name = f"aborts-{timezone.localdate().isoformat()}.{ending}"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_no_cell_is_a_formula(begin: str, auditor: httpx.Client, manager: User) -> None:
    text = f"{begin}HYPERLINK(1)"
    factories.act(manager, **EACH_KIND["refused"] | {"reason": text, "answer": text}, run_name=text)
    (row,) = exported_rows(auditor)
    assert {row["reason"], row["answer"], row["run_name"]} == {f"'{text}"}
    assert exported(auditor)[0]["reason"] == text


@pytest.mark.parametrize("text", ['a "quoted", cell', "two\r\nlines", "ünï ☂", HOSTILE, "''"])
def test_any_text_comes_back_from_an_export(
    text: str, auditor: httpx.Client, manager: User
) -> None:
    factories.act(manager, reason=text)
    assert exported_rows(auditor)[0]["reason"] == text
    assert exported(auditor)[0]["reason"] == text


def test_an_act_that_comes_while_it_is_written_is_not_in_the_export(
    live: Live, manager: User
) -> None:
    keys = [factories.act(manager).pk for _ in range(4)][::-1]
    stage = factories.stage()
    asked = abort_log.AuditFilter(where=abort_log.Q())
    parts: list[bytes] = []

    async def read_on(*, first: bool) -> None:
        if first:
            parts.append(await anext(written))
        else:
            parts.extend([part async for part in written])

    written = aborts_export.as_json(asked, "", at_once=2)
    live.run(lambda: read_on(first=True))
    factories.act(manager, stage)
    live.run(lambda: read_on(first=False))
    assert [each["id"] for each in json.loads(b"".join(parts))] == keys


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_an_export_is_only_read(ending: str, at_desk: Client) -> None:
    assert at_desk.post(f"/aborts/export.{ending}").status_code == 405


def test_an_export_has_what_one_may_see_and_no_more(
    live: Live, in_two_places: dict[str, Abort]
) -> None:
    person = live.person("viewer")
    assert [each["reason"] for each in exported(person)] == ["shop Staging"]
    assert [each["reason"] for each in exported_rows(person)] == ["shop Staging"]
