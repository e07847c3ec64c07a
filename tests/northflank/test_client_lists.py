"""Lists: their pages, and the spelling of stages, over real sockets."""

import json
from typing import Any

import pytest

from dashboard.northflank import (
    NorthflankClient,
    NotFound,
    UnexpectedResponse,
    fetch_all_pages,
)
from tests.support import payloads
from tests.support.scripted_server import Responder, ScriptedServer, respond_with

pytestmark = pytest.mark.anyio


def projects(*ids: str, **paging: Any) -> Any:
    return respond_with(
        payloads.page("projects", *({"id": id, "name": id} for id in ids), **paging)
    )


async def drain_ids(client: NorthflankClient, **options: Any) -> list[str]:
    return [item.id for item in (await fetch_all_pages(client.list_projects, **options)).items]


async def test_list_is_read_by_page_numbers_to_its_last_page(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", "b", has_next=True), projects("b", "c", has_next=True), projects())
    assert await drain_ids(client) == ["a", "b", "c"]
    assert [request.query for request in server.requests] == [
        "per_page=100&page=1",
        "per_page=100&page=2",
        "per_page=100&page=3",
    ]


async def test_list_ends_at_repeated_page(client: NorthflankClient, server: ScriptedServer) -> None:
    server.enqueue(*[projects("a", has_next=True)] * 5)
    assert await drain_ids(client) == ["a"]
    assert len(server.requests) == 2


async def test_list_stops_at_maximum_pages(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", has_next=True), projects("b", has_next=True), projects("c"))
    assert await drain_ids(client, max_pages=2) == ["a", "b"]


async def test_last_page_with_only_an_unreadable_entry_is_counted(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", has_next=True), projects("x" * 256))
    page = await fetch_all_pages(client.list_projects)
    assert [project.id for project in page.items] == ["a"]
    assert page.omitted == 1


async def test_entry_repeated_on_next_page_is_not_omitted(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", "b", has_next=True), projects("b", "c"))
    page = await fetch_all_pages(client.list_projects)
    assert [item.id for item in page.items] == ["a", "b", "c"]
    assert page.omitted == 0


async def test_list_of_runs_longer_than_requested_is_cut_and_counted(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(respond_with(payloads.page("runs", *map(payloads.run, "abcd"))))
    page = await client.list_runs("shop", "checkout", "production", per_page=3)
    assert [item.id for item in page.items] == ["a", "b", "c"]
    assert (page.omitted, page.is_complete) == (1, False)


async def test_omitted_entries_of_all_pages_are_added(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", "", has_next=True), projects("b", "", "x" * 256))
    page = await fetch_all_pages(client.list_projects)
    assert page.omitted == 3


@pytest.mark.parametrize(
    "body",
    [
        {"data": None}, {"data": "odd"}, {"data": {}}, {"data": {"projects": None}}, [], {}, None,
        {"data": {"projects": [None, 7, {}]}},
    ],
)  # fmt: skip
async def test_response_without_list_raises_unexpected_answer(
    client: NorthflankClient, server: ScriptedServer, body: Any
) -> None:
    server.enqueue(respond_with(json.dumps(body).encode()))
    with pytest.raises(UnexpectedResponse):
        await client.list_projects()


@pytest.mark.parametrize(
    "data", [{}, None, [], {"projects": None}, {"projects": "odd"}, {"message": "odd"}]
)
async def test_later_page_without_list_keeps_the_pages_before_it(
    client: NorthflankClient, server: ScriptedServer, data: Any
) -> None:
    server.enqueue(projects("a", has_next=True), respond_with(payloads.data(data)))
    page = await fetch_all_pages(client.list_projects)
    assert [project.id for project in page.items] == ["a"]
    assert not page.is_complete
    assert len(server.requests) == 2


@pytest.mark.parametrize("data", [{}, None, {"runs": None}, {"pipelines": None}])
async def test_later_page_without_list_is_an_incomplete_end_of_each_list(
    client: NorthflankClient, server: ScriptedServer, data: Any
) -> None:
    server.enqueue(*[respond_with(payloads.data(data))] * 2)
    pipelines = await client.list_pipelines("shop", page=2)
    runs = await client.list_runs("shop", "checkout", "production", page=2)
    for page in (pipelines, runs):
        assert (page.items, page.has_next, page.is_complete) == ((), False, False)


async def test_first_page_of_runs_without_list_is_empty(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(respond_with({"data": {}}), respond_with({"data": {"runs": None}}))
    assert (await client.list_runs("shop", "checkout", "production")).is_complete
    with pytest.raises(UnexpectedResponse):
        await client.list_runs("shop", "checkout", "production")


@pytest.mark.parametrize("body", [{}, [], {"data": "down"}, {"error": {}}, b"<html>", b""])
async def test_later_page_that_is_no_answer_of_northflank_raises_unexpected_answer(
    client: NorthflankClient, server: ScriptedServer, body: Any
) -> None:
    server.enqueue(projects("a", has_next=True), respond_with(body))
    with pytest.raises(UnexpectedResponse):
        await fetch_all_pages(client.list_projects)


@pytest.mark.parametrize(
    ("script", "complete"),
    [
        ([projects("a", has_next=True), projects("b")], True),
        ([projects("a", has_next=True), projects("b", has_next=True)], False),
        ([projects("a", has_next=True), projects("a", has_next=True)], False),
        ([projects("a", has_next=True), projects("b", has_next=True), projects("c")], False),
        ([projects("a", "", has_next=True), projects("b")], False),
    ],
)
async def test_list_is_complete_only_when_read_to_end_without_gaps(
    client: NorthflankClient, server: ScriptedServer, script: list[Responder], complete: bool
) -> None:
    server.enqueue(*script)
    page = await fetch_all_pages(client.list_projects, max_pages=2)
    assert page.is_complete is complete


async def test_lone_surrogate_in_name_is_replaced(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    body = json.dumps(payloads.page("projects", {"id": "a", "name": "x\ud800\x00y"}))
    server.enqueue(respond_with(body.encode("ascii")))
    assert (await client.list_projects()).items[0].name == "x\ufffd\ufffdy"


FLOW = payloads.data({"spec": {}, "paused": False, "concurrencyPolicy": "latest"})
MISSING = respond_with(payloads.error("not found"), status=404)


async def requested_stages(server: ScriptedServer) -> list[str]:
    return [request.path.rpartition("/")[2] for request in server.requests]


@pytest.mark.parametrize("spelling", ["staging", "Staging"])
async def test_spelling_of_a_stage_is_tried_until_one_is_confirmed(
    client: NorthflankClient, server: ScriptedServer, spelling: str
) -> None:
    client._spell = None
    first = [MISSING] if spelling == "Staging" else []
    server.enqueue(*first, respond_with(FLOW), MISSING)
    flow = await client.get_release_flow("p", "l", "Staging")
    assert flow.concurrency_policy == "latest"
    with pytest.raises(NotFound):
        await client.get_run("p", "l", "Staging", "r")
    stages = [request.path.split("/")[7] for request in server.requests]
    assert stages == [*(["staging"] if first else []), spelling, spelling]


async def test_empty_list_confirms_no_spelling(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    client._spell = None
    server.enqueue(respond_with(payloads.page("runs")), MISSING, respond_with(FLOW))
    await client.list_runs("p", "l", "Staging")
    await client.get_release_flow("p", "l", "Staging")
    assert await requested_stages(server) == ["runs", "staging", "Staging"]


async def test_release_flow_not_found_in_either_spelling_raises(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    client._spell = None
    server.enqueue(MISSING, MISSING)
    with pytest.raises(NotFound):
        await client.get_release_flow("p", "l", "staging")


@pytest.mark.parametrize("body", [{"data": {}}, {"data": None}, {"data": []}, {"data": {"x": 1}}])
async def test_release_flow_response_without_fields_raises_unexpected_answer(
    client: NorthflankClient, server: ScriptedServer, body: Any
) -> None:
    server.enqueue(respond_with(body))
    with pytest.raises(UnexpectedResponse):
        await client.get_release_flow("p", "l", "staging")


async def test_pipeline_with_an_invisible_name_is_there(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(respond_with(payloads.data({"name": " "})), respond_with({"data": {}}))
    await client.check_pipeline("shop", "checkout")
    with pytest.raises(UnexpectedResponse):
        await client.check_pipeline("shop", "checkout")
