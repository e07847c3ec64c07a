"""Exports of the abort log: every abort with all its details, filtered like the page."""

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from django.contrib.auth.models import User

from dashboard.models import Abort
from dashboard.models.abort_lifecycle import EventType
from dashboard.web.components.aborts import abort_log
from dashboard.web.components.lists import export
from dashboard.web.components.lists.record_pages import RecordFilter
from dashboard.web.pages.aborts import aborts_export
from tests.support import factories
from tests.support.abort_kinds import FIELDS_BY_KIND, NOON
from tests.support.factories import HOSTILE
from tests.support.html import GetPage
from tests.support.live import Live


def export_json(client: httpx.Client, query: str = "") -> list[dict[str, Any]]:
    answer = client.get(f"/aborts/export.json?{query}")
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = json.loads(answer.text)
    return rows


def export_csv(client: httpx.Client, query: str = "") -> list[dict[str, str]]:
    answer = client.get(f"/aborts/export.csv?{query}")
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text, newline=""), strict=True))


def stream(extension: str, chunk_size: int = export.CHUNK_SIZE) -> AsyncIterator[bytes]:
    """Return an export of all aborts."""
    aborts = abort_log.with_details(Abort.objects.all())
    return export.stream(
        extension, RecordFilter(), aborts, aborts_export.csv_columns(""), chunk_size
    )


@pytest.fixture
def manager_http_client(live: Live, manager: User) -> httpx.Client:
    return live.sign_in("manager")


def test_export_contains_all_fields_of_abort(
    manager_http_client: httpx.Client, manager: User
) -> None:
    run = factories.run(
        factories.stage(), "r-1", name="Nightly", status="aborted",
        concluded_at=NOON + timedelta(seconds=5.25),
    )  # fmt: skip
    abort = factories.abort(
        run,
        manager,
        **FIELDS_BY_KIND["aborted"],
        reason="Stuck",
        client_address="192.0.2.7",
        via="api",
        token_name="PagerDuty",
        sent_at=NOON,
        responded_at=NOON,
        response_status=200,
    )
    abort.add_event(EventType.REQUESTED, NOON)
    abort.add_event(EventType.CONCLUDED, NOON, detail="aborted")
    facts = {
        "id": abort.pk,
        "requested_at": "2026-03-31T12:00:00.000+00:00",
        "username": "manager",
        "via": "api",
        "token": "PagerDuty",
        "address": "192.0.2.7",
        "reason": "Stuck",
        "project": "shop",
        "pipeline": "checkout",
        "stage": "Production",
        "run_id": "r-1",
        "run_name": "Nightly",
        "run_url": f"{str(manager_http_client.base_url).rstrip('/')}{factories.address(run)}",
        "work_kind": "",
        "work_id": "",
        "work_name": "",
        "state": "aborted",
        "sent_at": "2026-03-31T12:00:00.000+00:00",
        "send_count": 0,
        "responded_at": "2026-03-31T12:00:00.000+00:00",
        "response_status": 200,
        "response": "",
        "error_id": "",
        "outcome": "aborted",
        "settled_at": "2026-03-31T12:00:41.000+00:00",
        "duration_seconds": 5.25,
        "message": "Aborted after 5 s.",
        "again_of": None,
        "bulk_abort": None,
    }
    at = "2026-03-31T12:00:00.000+00:00"
    timeline = [
        {
            "at": at,
            "event_type": "requested",
            "detail": "",
            "text": "Requested by manager: “Stuck”.",
        },
        {
            "at": at,
            "event_type": "concluded",
            "detail": "aborted",
            "text": "Ended as aborted.",
        },
    ]
    assert export_json(manager_http_client) == [{**facts, "timeline": timeline}]
    assert export_csv(manager_http_client) == [
        {name: "" if value is None else str(value) for name, value in facts.items()}
    ]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_export_in_chunks_contains_every_abort(count: int, live: Live, manager: User) -> None:
    keys = [factories.abort_of_new_run(manager).pk for _ in range(count)][::-1]

    async def join(chunks: AsyncIterator[bytes]) -> str:
        return b"".join([chunk async for chunk in chunks]).decode()

    array = live.run(lambda: join(stream("json", chunk_size=3)))
    assert [item["id"] for item in json.loads(array)] == keys
    table = live.run(lambda: join(stream("csv", chunk_size=3)))
    rows = csv.DictReader(io.StringIO(table, newline=""), strict=True)
    assert [int(item["id"]) for item in rows] == keys


def test_export_applies_page_filters(manager_http_client: httpx.Client, manager: User) -> None:
    keys_by_kind = {
        kind: factories.abort_of_new_run(manager, **fields).pk
        for kind, fields in FIELDS_BY_KIND.items()
    }
    for kind, key in keys_by_kind.items():
        assert [
            (row["id"], row["state"]) for row in export_json(manager_http_client, f"state={kind}")
        ] == [(key, kind)]


def test_export_links_keep_page_filters(get_page: GetPage, manager: User) -> None:
    factories.abort_of_new_run(manager)
    links = [
        urlsplit(link.attributes["href"] or "")
        for link in get_page("/aborts/?username=man&state=under_way&before=7&text=").css(
            ".exports a"
        )
    ]
    assert [link.path for link in links] == ["/aborts/export.csv", "/aborts/export.json"]
    assert [parse_qs(link.query) for link in links] == [
        {"username": ["man"], "state": ["under_way"]}
    ] * 2


@pytest.mark.parametrize("query", ["state=nope", "from=x", "stat=refused"])
def test_export_with_invalid_filter_returns_400(
    query: str, manager_http_client: httpx.Client
) -> None:
    answer = manager_http_client.get(f"/aborts/export.csv?{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")
    assert "“" in answer.text


@pytest.mark.parametrize("prefix", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_csv_export_escapes_formula_prefixes(
    prefix: str, manager_http_client: httpx.Client, manager: User
) -> None:
    text = f"{prefix}HYPERLINK(1)"
    factories.abort_of_new_run(
        manager, **FIELDS_BY_KIND["refused"] | {"reason": text, "response": text}, run_name=text
    )
    (row,) = export_csv(manager_http_client)
    assert {row["reason"], row["response"], row["run_name"]} == {f"'{text}"}
    assert export_json(manager_http_client)[0]["reason"] == text


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("Fix;=1+1", "Fix;'=1+1"),
        ("Fix; \u00a0-1", "Fix;' \u00a0-1"),
        ("Fix\t@SUM(1)", "Fix\t'@SUM(1)"),
        ("Fix\n+1\r\n=1", "Fix\n'+1\r\n'=1"),
        ('Fix;"=1;+1', "Fix;'\"=1;'+1"),
        ("Fix;;＝1", "Fix;;'＝1"),
        ("  =1+1", "'  =1+1"),
        ('"=1', "'\"=1"),
    ],
)
def test_csv_export_escapes_formula_where_a_spreadsheet_may_begin_a_cell(
    text: str, cell: str, manager_http_client: httpx.Client, manager: User
) -> None:
    factories.abort_of_new_run(manager, run_name=text)
    assert export_csv(manager_http_client)[0]["run_name"] == cell
    assert export_json(manager_http_client)[0]["run_name"] == text


@pytest.mark.parametrize("text", ['a "quoted", cell', "two\r\nlines", "ünï ☂", HOSTILE, "''"])
def test_export_round_trips_any_text(
    text: str, manager_http_client: httpx.Client, manager: User
) -> None:
    factories.abort_of_new_run(manager, reason=text)
    assert export_csv(manager_http_client)[0]["reason"] == text
    assert export_json(manager_http_client)[0]["reason"] == text


def test_export_contains_only_aborts_of_visible_stages(
    live: Live, aborts_in_two_projects: dict[str, Abort]
) -> None:
    client = live.sign_in("viewer")
    assert [row["reason"] for row in export_json(client)] == ["shop Staging"]
    assert [row["reason"] for row in export_csv(client)] == ["shop Staging"]
