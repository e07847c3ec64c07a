"""Lists that are longer than was asked for, or of which a part can't be read."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.accounts import permissions
from dashboard.models import CatalogueSweep, Pipeline, Project, Run, Stage
from dashboard.sandbox import parse_fault
from dashboard.web.components import sync_report
from dashboard.web.live import region as live_region
from tests.support import factories
from tests.support.html import one, parsed, words
from tests.support.world import LONG_AGO, World

type Lines = Callable[[str], list[dict[str, Any]]]

PRODUCTION = "@GET /v1/projects/payments/pipelines/ledger/release-flows/production/runs$"


def read_again(world: World, *faults: str) -> None:
    world.sandbox.faults = [parse_fault(fault) for fault in faults]
    CatalogueSweep.objects.update(next_at=LONG_AGO)
    Run.objects.update(next_read_at=None)
    world.make_due()
    world.live.sync(1)


def production() -> Stage:
    return Stage.objects.get(pipeline__slug="ledger", name="Production")


def test_no_more_runs_are_taken_than_were_asked_for(world: World) -> None:
    read_again(world, f"data:{runs(2_000)}{PRODUCTION}")
    assert production().runs.count() == 100


def runs(count: int) -> str:
    each = '{"id":"made-up-N","status":"success","concluded":true}'
    return '{"runs":[' + ",".join(each.replace("N", str(n)) for n in range(count)) + "]}"


def test_what_was_beyond_is_counted(world: World) -> None:
    world.sync()
    read_again(world, f"surplus:700{PRODUCTION}")
    assert production().surplus == 700


def test_what_cannot_be_read_is_counted_and_the_rest_taken(world: World) -> None:
    world.sync()
    new = world.start()
    newer = world.start()
    read_again(world, f"unreadable{PRODUCTION}")
    assert production().left_out == 1
    assert Run.objects.filter(run_id__in=[new, newer]).count() == 1


def test_such_a_list_is_no_trouble_of_the_stage(world: World) -> None:
    world.sync()
    read_again(world, f"surplus{PRODUCTION}")
    assert (production().error, production().failures) == ("", 0)


@pytest.mark.parametrize(
    ("fault", "counted"), [("surplus:700", (0, 700)), ("unreadable:3", (3, 0))]
)
def test_it_is_logged_once_at_each_end(
    world: World, said: Lines, fault: str, counted: tuple[int, int]
) -> None:
    world.sync()
    for _ in range(3):
        read_again(world, f"{fault}{PRODUCTION}")
    for _ in range(3):
        read_again(world)
    assert [(line["of"], line["left_out"], line["surplus"]) for line in said("list.in_part")] == [
        ("Ledger / Production", *counted)
    ]
    assert [line["of"] for line in said("list.whole_again")] == ["Ledger / Production"]


@pytest.mark.parametrize("fault", ["surplus", "unreadable"])
@pytest.mark.parametrize(
    ("path", "of"),
    [("@GET /v1/projects$", None), ("@GET /v1/projects/payments/pipelines$", "payments")],
)
def test_so_it_is_for_the_catalogue(
    everything: World, said: Lines, fault: str, path: str, of: str | None
) -> None:
    everything.sync()
    before = Project.objects.count(), Pipeline.objects.count()
    for _ in range(2):
        read_again(everything, f"{fault}{path}")
    sweep = CatalogueSweep.objects.get(project__slug=of)
    assert sweep.is_partial
    assert (Project.objects.count(), Pipeline.objects.count()) == before
    read_again(everything)
    sweep.refresh_from_db()
    assert not sweep.is_partial
    assert said("list.in_part") != []


# --- said on pages -------------------------------------------------------------------------------

LONGER = "Northflank’s list was longer than asked for: 700 entries were not taken."
UNREAD = "1 entry of Northflank’s list can’t be read, and is not shown."


@pytest.fixture
def desk(client: Client, viewer: User) -> Client:
    client.force_login(viewer)
    return client


@pytest.fixture
def odd(db: None) -> Stage:
    factories.worker()
    return factories.stage(left_out=1, surplus=700)


def test_the_stages_page_says_what_was_not_taken(desk: Client, odd: Stage) -> None:
    page = parsed(desk.get(factories.address(odd)))
    assert words(one(page, "#stage-error")) == f"{UNREAD} {LONGER}"


def test_status_says_what_was_not_taken(desk: Client, odd: Stage) -> None:
    page = parsed(desk.get("/status/"))
    assert words(one(page, "[data-partial]")) == f"{UNREAD} {LONGER}"
    assert words(one(page, "[data-state]")) == "1 list could be taken only in part."


def test_status_says_so_of_a_list_of_the_catalogue(desk: Client, odd: Stage) -> None:
    now = timezone.now()
    CatalogueSweep.objects.create(next_at=now, swept_at=now, surplus=700)
    page = parsed(desk.get("/status/"))
    assert words(one(page, "[data-list] dd")) == LONGER
    assert words(one(page, "[data-state]")) == "2 lists could be taken only in part."


def test_one_that_cannot_be_read_at_all_is_not_told_of_twice(desk: Client, odd: Stage) -> None:
    Stage.objects.update(error="x", error_message="It broke.")
    page = parsed(desk.get(factories.address(odd)))
    assert words(one(page, "#stage-error")) == "It broke."


def test_pages_about_many_stages_say_so_too(viewer: User, odd: Stage) -> None:
    as_of = live_region.as_of_all(permissions.rights(viewer), [odd])
    assert as_of.elsewhere == "1 list could be taken only in part."


def test_such_a_stage_stands_before_those_of_which_all_was_taken(viewer: User, odd: Stage) -> None:
    for name in ("Development", "Staging"):
        factories.stage(name)
    shown = sync_report.of(permissions.rights(viewer), timezone.now())
    assert shown.stages[0].stage == "Production"
