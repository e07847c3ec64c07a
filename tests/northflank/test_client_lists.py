"""Lists: pages, cursors, and the spelling of stages, over real sockets."""

import json
from typing import Any

import pytest

from dashboard.northflank import (
    NorthflankClient,
    Omission,
    Page,
    Project,
    UnexpectedResponse,
    fetch_all_pages,
    find_release_flow,
)
from tests.support import payloads
from tests.support.scripted_server import Responder, ScriptedServer, respond_with

pytestmark = pytest.mark.anyio


def projects(*ids: str, **paging: Any) -> Any:
    return respond_with(
        payloads.page("projects", *({"id": id, "name": id} for id in ids), **paging)
    )


async def drain_ids(client: NorthflankClient, **options: Any) -> list[str]:
    return [
        item.id
        for item in (
            await fetch_all_pages(lambda cursor: client.list_projects(cursor=cursor), **options)
        ).items
    ]


async def test_list_follows_cursors_to_last_page(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", "b", cursor="c2"), projects("c"))
    assert await drain_ids(client) == ["a", "b", "c"]
    assert [request.query for request in server.requests] == [
        "per_page=100",
        "per_page=100&cursor=c2",
    ]


async def test_list_without_cursor_uses_page_numbers(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", has_next=True), projects("b", has_next=True), projects("c"))
    assert await drain_ids(client) == ["a", "b", "c"]
    assert [request.query for request in server.requests] == [
        "per_page=100",
        "per_page=100&page=2",
        "per_page=100&page=3",
    ]


async def test_list_ignores_cursor_on_last_page(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", cursor="c2", has_next=False))
    assert await drain_ids(client) == ["a"]


async def test_list_ends_at_repeated_cursor(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", cursor="c2"), projects("b", cursor="c2"), projects("c"))
    assert await drain_ids(client) == ["a", "b"]


async def test_list_ends_at_repeated_page(client: NorthflankClient, server: ScriptedServer) -> None:
    server.enqueue(*[projects("a", has_next=True)] * 5)
    assert await drain_ids(client) == ["a"]
    assert len(server.requests) == 2


async def test_list_keeps_item_on_two_pages_once(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", "b", cursor="c2"), projects("b", "c"))
    assert await drain_ids(client) == ["a", "b", "c"]


async def test_list_stops_at_maximum_pages(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", cursor="c2"), projects("b", cursor="c3"), projects("c"))
    assert await drain_ids(client, max_pages=2) == ["a", "b"]


@pytest.mark.parametrize("cursor", ["null", '""', "{}", "false"])
async def test_list_with_invalid_cursor_has_no_cursor(
    client: NorthflankClient, server: ScriptedServer, cursor: str
) -> None:
    server.enqueue(
        respond_with(
            f'{{"data":{{"projects":[]}},"pagination":{{"hasNextPage":true,"cursor":{cursor}}}}}'.encode()
        )
    )
    assert await client.list_projects() == Page((), has_next=True, cursor=None)


@pytest.mark.parametrize(
    "body",
    [
        {"data": []},
        {"data": {"projects": []}, "pagination": None},
        {"data": {"projects": []}, "pagination": {"hasNextPage": "yes"}},
    ],
)
async def test_list_without_items_is_an_empty_last_page(
    client: NorthflankClient, server: ScriptedServer, body: Any
) -> None:
    server.enqueue(respond_with(body))
    assert await client.list_projects() == Page((), has_next=False, cursor=None)


async def test_list_is_the_only_array_of_any_name(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(respond_with(payloads.page("workflows", {"id": "a"})))
    assert [item.id for item in (await client.list_pipelines("shop")).items] == ["a"]


async def test_list_leaves_out_and_counts_items_without_valid_id(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    items = [{}, {"id": ""}, {"id": "x" * 256}, {"id": 7}, {"id": "a\x00"}, {"id": ".."}, None, "x"]
    server.enqueue(respond_with(payloads.page("projects", *items, {"id": "fine"})))
    page = await client.list_projects()
    assert page.items == (Project("fine", None),)
    assert page.omitted == {Omission.NO_ID: 5, Omission.LONG_ID: 1, Omission.UNREADABLE: 2}


async def test_last_page_with_only_an_unreadable_entry_is_counted(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", cursor="c2"), projects("x" * 256))
    page = await fetch_all_pages(lambda cursor: client.list_projects(cursor=cursor))
    assert [project.id for project in page.items] == ["a"]
    assert page.omitted == {Omission.LONG_ID: 1}


async def test_page_by_number_with_only_an_unreadable_entry_is_counted(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", has_next=True), projects("x" * 256))
    page = await fetch_all_pages(lambda cursor: client.list_projects(cursor=cursor))
    assert page.omitted == {Omission.LONG_ID: 1}


@pytest.mark.parametrize("page", [None, 1])
async def test_first_page_with_only_an_unreadable_entry_is_unexpected(
    client: NorthflankClient, server: ScriptedServer, page: int | None
) -> None:
    server.enqueue(respond_with(payloads.page("runs", {"id": "x" * 256})))
    with pytest.raises(UnexpectedResponse):
        await client.list_runs("shop", "checkout", "production", page=page)


async def test_list_keeps_first_of_entries_with_one_id_and_counts_others(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    twins = [{"id": "a", "name": "first"}, {"id": "b"}, {"id": "a", "name": "second"}]
    server.enqueue(respond_with(payloads.page("projects", *twins)))
    page = await client.list_projects()
    assert page.items == (Project("a", "first"), Project("b", None))
    assert page.omitted == {Omission.DUPLICATE_ID: 1}


async def test_entry_repeated_on_next_page_is_not_omitted(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", "b", cursor="c2"), projects("b", "c"))
    page = await fetch_all_pages(lambda cursor: client.list_projects(cursor=cursor))
    assert [item.id for item in page.items] == ["a", "b", "c"]
    assert page.omitted == {}


async def test_omitted_entries_of_all_pages_are_added(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", "", cursor="c2"), projects("b", "", "x" * 256))
    page = await fetch_all_pages(lambda cursor: client.list_projects(cursor=cursor))
    assert page.omitted == {Omission.NO_ID: 2, Omission.LONG_ID: 1}


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


async def test_list_longer_than_requested_is_cut_and_counted(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(projects("a", "b", "c", "d"))
    page = await client.list_projects(per_page=3)
    assert [item.id for item in page.items] == ["a", "b", "c"]
    assert (page.omitted, page.is_complete) == ({Omission.SURPLUS: 1}, False)


@pytest.mark.parametrize(
    ("script", "complete"),
    [
        ([projects("a", cursor="c2"), projects("b")], True),
        ([projects("a", cursor="c2"), projects("b", cursor="c2")], False),
        ([projects("a", cursor="c2"), projects("a", cursor="c3")], False),
        ([projects("a", cursor="c2"), projects("b", cursor="c3"), projects("c")], False),
        ([projects("a", "", cursor="c2"), projects("b")], False),
    ],
)
async def test_list_is_complete_only_when_read_to_end_without_gaps(
    client: NorthflankClient, server: ScriptedServer, script: list[Responder], complete: bool
) -> None:
    server.enqueue(*script)
    page = await fetch_all_pages(lambda cursor: client.list_projects(cursor=cursor), max_pages=2)
    assert page.is_complete is complete


async def test_lone_surrogate_in_name_is_replaced(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    body = json.dumps(payloads.page("projects", {"id": "a", "name": "x\ud800\x00y"}))
    server.enqueue(respond_with(body.encode("ascii")))
    assert (await client.list_projects()).items[0].name == "x\ufffd\ufffdy"


FLOW = payloads.data({"status": "success", "paused": False, "concurrencyPolicy": "latest"})
MISSING = respond_with(payloads.error("not found"), status=404)


async def requested_stages(server: ScriptedServer) -> list[str]:
    return [request.path.rpartition("/")[2] for request in server.requests]


async def test_release_flow_is_requested_in_lower_case_then_capitalised(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(MISSING, respond_with(FLOW))
    result = await find_release_flow(client, "p", "l", "Staging")
    assert result is not None
    assert (result[0].concurrency_policy, result[1]) == ("latest", "Staging")
    assert await requested_stages(server) == ["staging", "Staging"]


async def test_release_flow_with_preferred_spelling_is_requested_once(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(respond_with(FLOW))
    await find_release_flow(client, "p", "l", "staging", prefer_capitalised=True)
    assert await requested_stages(server) == ["Staging"]


async def test_release_flow_not_found_in_either_spelling_is_none(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(MISSING, MISSING)
    assert await find_release_flow(client, "p", "l", "staging") is None


@pytest.mark.parametrize("body", [{"data": {}}, {"data": None}, {"data": []}, {"data": {"x": 1}}])
async def test_release_flow_response_without_fields_raises_unexpected_answer(
    client: NorthflankClient, server: ScriptedServer, body: Any
) -> None:
    server.enqueue(respond_with(body))
    with pytest.raises(UnexpectedResponse):
        await find_release_flow(client, "p", "l", "staging")


@pytest.mark.parametrize("body", [{"data": {}}, {"data": None}, {"data": {"id": "main"}}])
async def test_pipeline_response_without_name_raises_unexpected_answer(
    client: NorthflankClient, server: ScriptedServer, body: Any
) -> None:
    server.enqueue(respond_with(body))
    with pytest.raises(UnexpectedResponse):
        await client.check_pipeline("shop", "main")
