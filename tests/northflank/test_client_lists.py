"""Lists: pages, cursors, and the spelling of stages, over real sockets."""

import json
from typing import Any

import pytest

from dashboard.northflank import (
    NorthflankClient,
    Page,
    Project,
    UnexpectedAnswer,
    drain,
    find_release_flow,
)
from tests.support import payloads
from tests.support.scripted_server import Play, ScriptedServer, answers

pytestmark = pytest.mark.anyio


def projects(*ids: str, **paging: Any) -> Any:
    return answers(
        payloads.page("projects", *({"id": each, "name": each} for each in ids), **paging)
    )


async def drained(client: NorthflankClient, **options: Any) -> list[str]:
    return [
        each.id
        for each in (await drain(lambda cursor: client.projects(cursor=cursor), **options)).items
    ]


async def test_cursors_are_followed_to_the_last_page(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(projects("a", "b", cursor="c2"), projects("c"))
    assert await drained(client) == ["a", "b", "c"]
    assert [request.query for request in server.requests] == [
        "per_page=100",
        "per_page=100&cursor=c2",
    ]


async def test_without_a_cursor_the_pages_are_counted(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(projects("a", has_next=True), projects("b", has_next=True), projects("c"))
    assert await drained(client) == ["a", "b", "c"]
    assert [request.query for request in server.requests] == [
        "per_page=100",
        "per_page=100&page=2",
        "per_page=100&page=3",
    ]


async def test_a_cursor_on_the_last_page_is_not_followed(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(projects("a", cursor="c2", has_next=False))
    assert await drained(client) == ["a"]


async def test_a_repeated_cursor_ends_the_list(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(projects("a", cursor="c2"), projects("b", cursor="c2"), projects("c"))
    assert await drained(client) == ["a", "b"]


async def test_a_server_that_repeats_its_page_ends_the_list(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(*[projects("a", has_next=True)] * 5)
    assert await drained(client) == ["a"]
    assert len(server.requests) == 2


async def test_an_id_that_moved_to_the_next_page_is_kept_once(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(projects("a", "b", cursor="c2"), projects("b", "c"))
    assert await drained(client) == ["a", "b", "c"]


async def test_the_number_of_pages_is_bounded(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(projects("a", cursor="c2"), projects("b", cursor="c3"), projects("c"))
    assert await drained(client, max_pages=2) == ["a", "b"]


@pytest.mark.parametrize("cursor", ["null", '""', "{}", "false"])
async def test_an_odd_cursor_reads_like_none(
    client: NorthflankClient, server: ScriptedServer, cursor: str
) -> None:
    server.plays(
        answers(
            f'{{"data":{{"projects":[]}},"pagination":{{"hasNextPage":true,"cursor":{cursor}}}}}'.encode()
        )
    )
    assert await client.projects() == Page((), has_next=True, cursor=None)


@pytest.mark.parametrize(
    "body",
    [
        {"data": []},
        {"data": {"projects": []}, "pagination": None},
        {"data": {"projects": []}, "pagination": {"hasNextPage": "yes"}},
    ],
)
async def test_a_list_that_holds_nothing_is_an_empty_last_page(
    client: NorthflankClient, server: ScriptedServer, body: Any
) -> None:
    server.plays(answers(body))
    assert await client.projects() == Page((), has_next=False, cursor=None)


async def test_the_only_array_is_the_list_whatever_its_name(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(answers(payloads.page("workflows", {"id": "a"})))
    assert [each.id for each in (await client.pipelines("shop")).items] == ["a"]


async def test_items_without_a_usable_id_are_counted_and_left_out(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    odd = [{}, {"id": ""}, {"id": "x" * 256}, {"id": 7}, {"id": "a\x00"}, {"id": ".."}, None, "x"]
    server.plays(answers(payloads.page("projects", *odd, {"id": "fine"})))
    page = await client.projects()
    assert page.items == (Project("fine", "fine", None, None),)
    assert page.left_out == len(odd)


@pytest.mark.parametrize(
    "odd",
    [
        {"data": None}, {"data": "odd"}, {"data": {}}, {"data": {"projects": None}}, [], {}, None,
        {"data": {"projects": [None, 7, {}]}},
    ],
)  # fmt: skip
async def test_what_holds_no_list_that_can_be_read_is_a_broken_answer(
    client: NorthflankClient, server: ScriptedServer, odd: Any
) -> None:
    server.plays(answers(json.dumps(odd).encode()))
    with pytest.raises(UnexpectedAnswer):
        await client.projects()


async def test_of_a_list_that_is_longer_than_was_asked_for_no_more_is_taken(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(projects("a", "b", "c", "d"))
    page = await client.projects(per_page=3)
    assert [each.id for each in page.items] == ["a", "b", "c"]
    assert (page.surplus, page.complete) == (1, False)


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
async def test_pages_are_the_whole_list_only_to_its_end_and_with_nothing_left_out(
    client: NorthflankClient, server: ScriptedServer, script: list[Play], complete: bool
) -> None:
    server.plays(*script)
    drained = await drain(lambda cursor: client.projects(cursor=cursor), max_pages=2)
    assert drained.complete is complete


async def test_a_lone_surrogate_in_one_name_does_not_cost_the_page(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    body = json.dumps(payloads.page("projects", {"id": "a", "name": "x\ud800\x00y"}))
    server.plays(answers(body.encode("ascii")))
    assert (await client.projects()).items[0].name == "x\ufffd\ufffdy"


FLOW = payloads.data({"status": "success", "paused": False, "concurrencyPolicy": "latest"})
MISSING = answers(payloads.error("not found"), status=404)


async def stages_asked(server: ScriptedServer) -> list[str]:
    return [request.path.rpartition("/")[2] for request in server.requests]


async def test_a_stage_is_tried_in_lower_case_then_capitalised(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(MISSING, answers(FLOW))
    found = await find_release_flow(client, "p", "l", "Staging")
    assert found is not None
    assert (found[0].concurrency_policy, found[1]) == ("latest", "Staging")
    assert await stages_asked(server) == ["staging", "Staging"]


async def test_the_spelling_that_worked_before_is_tried_first(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(answers(FLOW))
    await find_release_flow(client, "p", "l", "staging", prefer_capitalised=True)
    assert await stages_asked(server) == ["Staging"]


async def test_a_stage_that_neither_spelling_finds_has_no_flow(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.plays(MISSING, MISSING)
    assert await find_release_flow(client, "p", "l", "staging") is None


@pytest.mark.parametrize("odd", [{"data": {}}, {"data": None}, {"data": []}, {"data": {"x": 1}}])
async def test_an_answer_that_names_no_flow_does_not_say_that_there_is_none(
    client: NorthflankClient, server: ScriptedServer, odd: Any
) -> None:
    server.plays(answers(odd))
    with pytest.raises(UnexpectedAnswer):
        await find_release_flow(client, "p", "l", "staging")


@pytest.mark.parametrize("odd", [{"data": {}}, {"data": None}, {"data": {"id": "main"}}])
async def test_a_pipeline_that_is_not_named_is_none(
    client: NorthflankClient, server: ScriptedServer, odd: Any
) -> None:
    server.plays(answers(odd))
    with pytest.raises(UnexpectedAnswer):
        await client.pipeline("shop", "main")
