"""Run lookup by id: stage by stage, within a share of the rate budget for all users."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from time import monotonic

import httpx
import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.accounts import permissions
from dashboard.db.threads import now, run_in_db_thread
from dashboard.models import CatalogSync, Grant, Run, RunLookup, Stage
from dashboard.sandbox import parse_fault
from dashboard.sync import run_lookup
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection
from dashboard.web.http import run_hints
from tests.support import factories, live_runs
from tests.support.html import HTMX, parse_html, select_one, text_of
from tests.support.live import Live, token
from tests.support.live_runs import LEDGER, wait_until

NO_HINTS = dict.fromkeys(run_hints.HINT_FIELDS, "")
UNKNOWN_RUN_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def client(live: Live, viewer: User) -> httpx.Client:
    set_rate_limit(live, 1000)
    return live.sign_in("viewer")


@pytest.fixture
def twelve_other_stages(live: Live) -> int:
    """Twelve recently active stages, without the run that is looked up."""
    for number in range(12):
        factories.stage(parent=factories.pipeline(f"p{number}"), last_run_change_at=timezone.now())
    return 12


def requests_for(live: Live, run_id: str) -> list[str]:
    return [path for _, path in live.sandbox.requests if run_id in path]


def wait_for_requests(live: Live, run_id: str, count: int) -> None:
    """Wait until all stages were asked: several are at once, and the run may be found before."""
    wait_until(lambda: len(requests_for(live, run_id)) >= count)
    assert len(requests_for(live, run_id)) == count


def search_status(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return text_of(select_one(parse_html(answer), "[data-search]"))


def reload_until_search_ends(client: httpx.Client, address: str) -> httpx.Response:
    """Reload a page, as it does by itself, until the search has ended."""
    for _ in range(30):
        answer = client.get(address)
        if answer.status_code != 200:
            return answer
    raise AssertionError(search_status(answer))


def reload_until_search_waits(client: httpx.Client, address: str) -> httpx.Response:
    """Reload a page until it shows why the search has stopped."""
    for _ in range(30):
        answer = client.get(address)
        if not search_status(answer).endswith("not found yet."):
            return answer
    raise AssertionError(search_status(answer))


def repeat_lookup(client: httpx.Client, address: str) -> httpx.Response:
    """Submit “Search again”, and follow the redirect."""
    form = {"csrfmiddlewaretoken": token(client)}
    return client.post(address, data=form, follow_redirects=True)


def set_rate_limit(live: Live, requests: int) -> None:
    """Set the sandbox's requests an hour."""
    live.sandbox.rate_limit_window.limit = requests


def spend_search_requests(requests: int) -> None:
    """Record that searches have used `requests` of this hour's."""
    RunLookup.objects.filter(run_id="searched").delete()
    factories.search_lookup(requests, parent=factories.stage("Development", has_flow=False))


def ledger_staging_run_address(hint: str) -> str:
    """The address of a run in Ledger's Staging, with a hint after its id."""
    return f"/projects/payments/pipelines/ledger/release-flows/staging/runs/{hint}"


def test_run_lookup_with_single_stage_redirects_at_once(live: Live, client: httpx.Client) -> None:
    live_runs.stage(LEDGER)
    run_id = live_runs.start_run(live, LEDGER)
    answer = client.get(f"/runs/{run_id}/?from=alert&x=a%2Fb")
    run = Run.objects.with_stage().get(run_id=run_id)
    assert answer.status_code == 302
    assert answer.headers["location"] == f"{factories.address(run)}?from=alert&x=a%2Fb"


def test_run_lookup_requests_all_stages_until_found(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    live_runs.stage(LEDGER)  # not Production, so the last
    run_id = live_runs.start_run(live, LEDGER)
    assert reload_until_search_ends(client, f"/runs/{run_id}/").status_code == 302
    wait_for_requests(live, run_id, 13)


def test_candidate_stages_order_production_first_then_in_flight(
    live: Live, client: httpx.Client
) -> None:
    for number in range(3):
        for name in ("Development", "Staging", "Production"):
            factories.stage(name, parent=factories.pipeline(f"p{number}"))
    factories.run(Stage.objects.get(pipeline__slug="p2", name="Production"))
    factories.run(Stage.objects.get(pipeline__slug="p1", name="Staging"))
    keys = run_hints.candidate_stages(permissions.ALL, NO_HINTS).stage_keys
    order = [str(Stage.objects.get(pk=key)).split(" / ") for key in keys]
    assert [stage for _, stage in order] == ["Production"] * 3 + ["Staging"] * 3 + [
        "Development"
    ] * 3
    assert order[0][0].lower() == "p2"
    assert order[3][0].lower() == "p1"


@pytest.mark.parametrize(
    "hint",
    [
        "pipeline=LEDGER",
        "project=Payments",
        "project=payments&pipeline=ledger",
        "pipeline=ledger&stage=staging",
    ],
)
def test_run_lookup_with_hint_requests_only_hinted_stage(
    hint: str, live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    live_runs.stage(LEDGER)
    run_id = live_runs.start_run(live, LEDGER)
    answer = reload_until_search_ends(client, f"/runs/{run_id}/?{hint}")
    assert answer.headers["location"] == f"{ledger_staging_run_address(run_id)}/?{hint}"
    assert len(requests_for(live, run_id)) == 1
    not_found = reload_until_search_ends(client, f"/runs/{UNKNOWN_RUN_ID}/?{hint}")
    assert not_found.status_code == 404
    assert len(requests_for(live, UNKNOWN_RUN_ID)) == 1
    html = parse_html(not_found)
    assert "in the one stage that matches the address" in text_of(select_one(html, "[data-reason]"))
    next_links = [(link.text(), link.attributes["href"]) for link in html.css(".next-links a")]
    assert ("Search all 13 stages", f"/runs/{UNKNOWN_RUN_ID}/") in next_links


@pytest.mark.parametrize("stage", ["staging", "Staging"])
def test_run_lookup_with_complete_hint_redirects_even_when_budget_is_spent(
    stage: str, live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    spend_search_requests(10_000)
    live_runs.stage(LEDGER)
    run_id = live_runs.start_run(live, LEDGER)
    hint = f"project=Payments&pipeline=ledger&stage={stage}&from=alert"
    answer = client.get(f"/runs/{run_id}/?{hint}")
    assert answer.status_code == 302
    assert answer.headers["location"] == f"{ledger_staging_run_address(run_id)}/?{hint}"
    assert requests_for(live, run_id) == []
    assert client.get(answer.headers["location"]).status_code == 200
    assert len(requests_for(live, run_id)) == 1


def test_run_lookup_with_wrong_complete_hint_links_to_search_of_all_stages(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    live_runs.stage(LEDGER)
    run_id = live_runs.start_run(live, LEDGER)
    not_found = client.get(
        f"/runs/{run_id}/?project=shop&pipeline=p1&stage=production", follow_redirects=True
    )
    assert not_found.status_code == 404
    next_links = {
        link.text(): link.attributes["href"] or ""
        for link in parse_html(not_found).css(".next-links a")
    }
    answer = reload_until_search_ends(client, next_links["Search all 13 stages"])
    assert answer.status_code == 302
    wait_for_requests(live, run_id, 13)


def test_run_lookup_with_one_wrong_hint_keeps_correct_hints(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    live_runs.stage(LEDGER)
    run_id = live_runs.start_run(live, LEDGER)
    answer = reload_until_search_ends(
        client, f"/runs/{run_id}/?pipeline=ledger&project=a-wrong-one"
    )
    assert answer.status_code == 302
    assert len(requests_for(live, run_id)) == 1


def test_run_lookup_with_hint_finds_run_there_though_another_place_has_one(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    live_runs.stage(LEDGER)
    run_id = live_runs.start_run(live, LEDGER)
    factories.run(factories.stage(parent=factories.pipeline("p1")), run_id)
    answer = reload_until_search_ends(client, f"/runs/{run_id}/?project=payments")
    assert answer.headers["location"].startswith(ledger_staging_run_address(run_id))
    assert len(requests_for(live, run_id)) == 1


def test_run_that_is_not_where_the_hint_says_is_opened_only_by_link_or_search_of_all_stages(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    live_runs.stage(LEDGER)
    run = factories.run(factories.stage(parent=factories.pipeline("p1")), "r-1")
    links = links_of_not_found_page(client, "/runs/r-1/?project=payments")
    assert links["Run “r-1” in P1 / Production"] == factories.address(run)
    answer = client.get(links["Search all 13 stages"])
    assert answer.headers["location"] == factories.address(run)


def test_run_that_is_not_in_the_one_stage_that_the_address_names_is_linked(
    live: Live, client: httpx.Client
) -> None:
    live_runs.stage(LEDGER)
    run = factories.run(factories.stage(parent=factories.pipeline("p1")), "r-1")
    address = "/runs/r-1/?project=payments&pipeline=ledger&stage=staging"
    links = links_of_not_found_page(client, client.get(address).headers["location"])
    assert links["Run “r-1” in P1 / Production"] == factories.address(run)
    assert len(requests_for(live, "r-1")) == 1


def test_run_of_removed_stage_is_linked_though_the_address_matches_all_listed_stages(
    live: Live, client: httpx.Client
) -> None:
    live_runs.stage(LEDGER)
    removed = factories.pipeline("p1", removed_at=timezone.now())
    run = factories.run(factories.stage(parent=removed), "r-1")
    links = links_of_not_found_page(client, "/runs/r-1/?project=payments")
    assert links["Run “r-1” in P1 / Production"] == factories.address(run)


def test_lookup_of_unknown_run_at_removed_location_searches_and_can_be_repeated(
    live: Live, client: httpx.Client
) -> None:
    live_runs.stage(LEDGER)
    removed = factories.pipeline("p1", removed_at=timezone.now())
    factories.stage(parent=removed)
    address = f"/runs/{UNKNOWN_RUN_ID}/?project=shop&pipeline=p1&stage=production"
    html = parse_html(reload_until_search_ends(client, address))
    retry_address = select_one(html, 'form[action*="/lookup/"]').attributes["action"] or ""
    RunLookup.objects.update(requested_at=now() - run_lookup.MIN_RETRY_INTERVAL)
    repeat_lookup(client, retry_address)
    reload_until_search_ends(client, address)
    assert len(requests_for(live, UNKNOWN_RUN_ID)) == 2


def links_of_not_found_page(client: httpx.Client, address: str) -> dict[str, str]:
    """Return the addresses of a search's 404 page by their texts."""
    not_found = reload_until_search_ends(client, address)
    assert not_found.status_code == 404
    return {
        link.text(): link.attributes["href"] or ""
        for link in parse_html(not_found).css("[data-reason] ~ * a")
    }


def test_run_lookup_with_only_wrong_hints_searches_all_stages(
    live: Live, client: httpx.Client
) -> None:
    live_runs.stage(LEDGER)
    run_id = live_runs.start_run(live, LEDGER)
    assert client.get(f"/runs/{run_id}/?project=x&pipeline=%00&stage=y").status_code == 302


def test_run_lookup_without_match_returns_404_and_is_not_repeated(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    address = f"/runs/{UNKNOWN_RUN_ID}/?project=shop&pipeline=%00&from=alert"
    answer = reload_until_search_ends(client, address)
    assert [client.get(address).status_code for _ in range(3)] == [404] * 3
    html = parse_html(answer)
    assert text_of(select_one(html, "[data-reason]")) == (
        f"Run “{UNKNOWN_RUN_ID}” not found. Northflank does not have it"
        " in any of the 12"
        " stages that you can see. It may have been deleted, or the link is incomplete."
    )
    assert len(requests_for(live, UNKNOWN_RUN_ID)) == 12


@pytest.mark.slow
def test_failed_run_lookup_shows_expiry_and_can_be_repeated(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    address = f"/runs/{UNKNOWN_RUN_ID}/?project=shop"
    html = parse_html(reload_until_search_ends(client, address))
    rows = RunLookup.objects.all()
    times = [time.attributes["datetime"] for time in html.css("[data-lookup-answer] time")]
    last_answer = max(row.answered_at for row in rows if row.answered_at)
    first_request = min(row.requested_at for row in rows)
    assert times == [
        last_answer.isoformat(),
        (first_request + run_lookup.ANSWER_LIFETIME).isoformat(),
    ]
    lookup_address = select_one(html, 'form[action*="/lookup/"]').attributes["action"] or ""
    early_answer = repeat_lookup(client, lookup_address)
    assert early_answer.status_code == 404
    assert "Searched just now" in early_answer.text
    earliest = select_one(parse_html(early_answer), "#notices time").attributes["datetime"]
    last_request = max(row.requested_at for row in rows)
    assert earliest == (last_request + run_lookup.MIN_RETRY_INTERVAL).isoformat()
    assert len(requests_for(live, UNKNOWN_RUN_ID)) == 12
    rows.update(requested_at=now() - run_lookup.MIN_RETRY_INTERVAL)
    assert repeat_lookup(client, lookup_address).url.query == b"project=shop"
    reload_until_search_ends(client, address)
    assert len(requests_for(live, UNKNOWN_RUN_ID)) == 24


@pytest.mark.parametrize(("minutes", "status"), [(4, 404), (6, 200)])
def test_run_of_stage_without_flow_is_looked_up_unless_that_was_just_checked(
    live: Live, client: httpx.Client, minutes: float, status: int
) -> None:
    stage = live_runs.stage(LEDGER)
    run_id = live_runs.start_run(live, LEDGER)
    checked_at = timezone.now() - timedelta(minutes=minutes)
    later = timezone.now() + timedelta(hours=6)
    Stage.objects.update(has_flow=False, flow_synced_at=checked_at, next_sync_at=later)
    assert client.get(f"{ledger_staging_run_address(run_id)}/").status_code == status
    is_found = status == 200
    assert bool(requests_for(live, run_id)) == is_found
    stage.refresh_from_db()
    assert (stage.next_sync_at < later) == is_found  # it has a flow: its runs are due


def test_unknown_run_at_full_address_can_be_looked_up_again(
    live: Live, client: httpx.Client
) -> None:
    live_runs.stage(LEDGER)
    html = parse_html(client.get(f"{ledger_staging_run_address(UNKNOWN_RUN_ID)}/"))
    assert "Not found on Northflank either." in text_of(select_one(html, "[data-reason]"))
    address = select_one(html, 'form[action*="/lookup/"]').attributes["action"] or ""
    RunLookup.objects.update(requested_at=now() - run_lookup.MIN_RETRY_INTERVAL)
    answer = repeat_lookup(client, address)
    assert answer.url.path == f"{ledger_staging_run_address(UNKNOWN_RUN_ID)}/"
    assert len(requests_for(live, UNKNOWN_RUN_ID)) == 2


def test_repeated_run_lookups_leave_half_of_budget_to_new_lookups(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    stages = list(Stage.objects.all())
    factories.search_lookup(100, parent=stages[0], is_repeat=True)
    for stage in stages:
        factories.search_lookup(1, parent=stage, run_id=UNKNOWN_RUN_ID, answered_at=None)
    assert "Repeated lookups have used their share" in search_status(
        client.get(f"/runs/{UNKNOWN_RUN_ID}/")
    )
    assert requests_for(live, UNKNOWN_RUN_ID) == []
    assert reload_until_search_ends(client, "/runs/another/").status_code == 404


@pytest.mark.slow
def test_concurrent_run_lookups_of_one_id_request_each_stage_once(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(lambda _: client.get(f"/runs/{UNKNOWN_RUN_ID}/"), range(24)))
    assert reload_until_search_ends(client, f"/runs/{UNKNOWN_RUN_ID}/").status_code == 404
    assert len(requests_for(live, UNKNOWN_RUN_ID)) == 12


def test_run_lookups_in_two_processes_request_each_stage_once(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    stages = run_hints.candidate_stages(permissions.ALL, NO_HINTS).stage_keys

    async def search_twice() -> list[run_lookup.SearchProgress]:
        other = Connection(live.connection.token, live.upstream_url)
        targets = [live.connection, other]
        try:
            await asyncio.gather(
                *(run_lookup.search(target, stages, UNKNOWN_RUN_ID) for target in targets)
            )
            return [await run_lookup.search(target, stages, UNKNOWN_RUN_ID) for target in targets]
        finally:
            await other.close()

    assert [progress.is_exhausted for progress in live.run(search_twice)] == [True, True]
    assert len(requests_for(live, UNKNOWN_RUN_ID)) == 12


@pytest.mark.slow
def test_run_lookups_of_many_unknown_ids_stop_at_lookup_share(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    set_rate_limit(live, 200)
    answers = [client.get(f"/runs/made-up-{number}/") for number in range(6)]
    assert "The 40 requests for searches are used up" in search_status(answers[-1])
    assert len(requests_for(live, "made-up")) == 40
    assert text_of(select_one(parse_html(answers[-1]), "[data-search-budget]")).startswith(
        "All searches together may use 40 of 200 requests per hour"
    )
    assert "40 of 40 used" in text_of(
        select_one(parse_html(client.get("/status/")), "[data-searches]")
    )
    run_id = live_runs.start_run(live, LEDGER)
    answer = client.get(f"{factories.address(live_runs.stage(LEDGER))}runs/{run_id}/")
    assert answer.status_code == 200, text_of(select_one(parse_html(answer), "[data-reason]"))


def test_run_lookup_of_one_id_leaves_budget_to_other_ids(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    set_rate_limit(live, 50)  # searches may use 10 of them, and there are 12 stages
    for _ in range(3):
        answer = client.get(f"/runs/{UNKNOWN_RUN_ID}/")
    assert "This search has used up its share of requests." in search_status(answer)
    assert len(requests_for(live, UNKNOWN_RUN_ID)) == 9
    client.get("/runs/another/")
    assert len(requests_for(live, "another")) == 1


def test_run_lookups_of_many_unknown_ids_do_not_reduce_sync_budget(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    set_rate_limit(live, 200)
    for run_id in ("made-up", "made-up-too"):
        assert reload_until_search_ends(client, f"/runs/{run_id}/").status_code == 404
    assert len(requests_for(live, "made-up")) == 24
    spend = live.run(lambda: run_in_db_thread(budget_store.load, now()))
    assert spend.margin == 20  # which so many reads would have used up
    assert spend.may_read_planned


def test_run_lookup_in_next_hour_continues_with_remaining_stages(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    live_runs.stage(LEDGER)
    run_id = live_runs.start_run(live, LEDGER)
    spend_search_requests(200 - 3)
    for _ in range(3):
        assert search_status(client.get(f"/runs/{run_id}/")).startswith("3 of 13 stages searched")
    spend_search_requests(0)
    assert reload_until_search_ends(client, f"/runs/{run_id}/").status_code == 302
    wait_for_requests(live, run_id, 13)


def test_run_lookup_with_one_forbidden_stage_requests_all_others(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    live_runs.stage(LEDGER)
    live.sandbox.faults = [parse_fault("forbidden:payments")]
    text = search_status(reload_until_search_waits(client, f"/runs/{UNKNOWN_RUN_ID}/"))
    assert text.startswith(
        "12 of 13 stages searched, not found yet. One stage could not be searched: "
    )
    assert "Resumes at " in text
    client.get(f"/runs/{UNKNOWN_RUN_ID}/")
    assert len(requests_for(live, UNKNOWN_RUN_ID)) == 13


def test_run_lookup_before_first_catalog_read_reports_listing_in_progress(
    live: Live, client: httpx.Client
) -> None:
    CatalogSync.objects.create(project=None, next_sync_at=now())
    assert "still being read" in search_status(client.get(f"/runs/{UNKNOWN_RUN_ID}/"))


def test_run_lookup_page_offers_only_visible_projects_pipelines_and_stages(
    live: Live, client: httpx.Client, viewer: User, twelve_other_stages: int
) -> None:
    live_runs.stage(LEDGER)
    spend_search_requests(10_000)

    def choices(address: str) -> dict[str, list[str]]:
        form = select_one(parse_html(client.get(address)), "[data-location-form]")
        assert form.attributes["action"] == f"/runs/{UNKNOWN_RUN_ID}/"
        return {
            select.attributes["name"] or "": [
                option.attributes["value"] or "" for option in select.css("option")
            ]
            for select in form.css("select")
        }

    all_choices = choices(f"/runs/{UNKNOWN_RUN_ID}/")
    assert all_choices["project"] == ["", "payments", "shop"]
    assert "ledger" in all_choices["pipeline"]
    assert all_choices["stage"] == ["", "production", "staging", "development"]
    assert choices(f"/runs/{UNKNOWN_RUN_ID}/?project=payments")["pipeline"] == ["", "ledger"]
    page = parse_html(
        client.get(f"/runs/{UNKNOWN_RUN_ID}/?project=shop&stage=production&from=alert")
    )
    selected = [option.attributes["value"] for option in page.css("option[selected]")]
    assert selected == ["shop", "production"]
    assert select_one(page, "[data-location-form] input[name=from]").attributes["value"] == "alert"
    Grant.objects.all().delete()
    factories.grant("view", "shop", viewer, project=factories.project("shop"), stage="Production")
    fewer_choices = choices(f"/runs/{UNKNOWN_RUN_ID}/")
    assert fewer_choices["project"] == ["", "shop"]
    assert "ledger" not in fewer_choices["pipeline"]


def test_run_lookup_page_reloads_after_run_was_synced_elsewhere(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    spend_search_requests(10_000)
    live_runs.stage(LEDGER)
    run_id = live_runs.start_run(live, LEDGER)
    address = f"/runs/{run_id}/?from=alert"
    page = select_one(parse_html(client.get(address)), "#live")
    assert page.attributes["hx-get"] == address
    answer = client.get(address, headers=HTMX)
    assert "HX-Refresh" not in answer.headers
    assert "0 of 13" in search_status(answer)
    live_runs.mirror_run(live, LEDGER, run_id)
    assert client.get(address, headers=HTMX).headers["HX-Refresh"] == "true"
    assert client.get(address).status_code == 302


def test_run_lookup_page_reloads_after_all_stages_were_requested(
    live: Live, client: httpx.Client
) -> None:
    live_runs.stage(LEDGER)
    assert client.get(f"/runs/{UNKNOWN_RUN_ID}/", headers=HTMX).headers["HX-Refresh"] == "true"
    assert client.get(f"/runs/{UNKNOWN_RUN_ID}/").status_code == 404


def test_run_lookup_requests_only_visible_stages(
    live: Live, client: httpx.Client, viewer: User, twelve_other_stages: int
) -> None:
    live_runs.stage(LEDGER)
    run_id = live_runs.start_run(live, LEDGER)
    Grant.objects.all().delete()
    factories.grant("view", "shop", viewer, project=factories.project("shop"), stage="Staging")
    answer = client.get(f"/runs/{run_id}/?project=payments&pipeline=ledger")
    assert answer.status_code == 404
    assert requests_for(live, run_id) == []
    assert "ledger" not in answer.text.replace("pipeline=ledger", "")


def test_run_lookup_skips_removed_stages_and_stages_without_flow(
    live: Live, client: httpx.Client
) -> None:
    factories.stage(has_flow=False)
    factories.stage(parent=factories.pipeline("old", removed_at=timezone.now()))
    assert client.get(f"/runs/{UNKNOWN_RUN_ID}/").status_code == 404
    assert requests_for(live, UNKNOWN_RUN_ID) == []


def test_run_lookup_during_outage_resumes_after_recovery(live: Live, client: httpx.Client) -> None:
    live_runs.stage(LEDGER)
    run_id = live_runs.start_run(live, LEDGER)
    live.sandbox.faults = [parse_fault("500")]
    assert search_status(client.get(f"/runs/{run_id}/")).startswith(
        "0 of 1 stages searched, not found yet."
    )
    request_count = len(requests_for(live, run_id))
    wait_until(lambda: live.connection.outage)
    live.connection.retry_at = monotonic() + 3600  # during the outage no page sends requests
    assert search_status(client.get(f"/runs/{run_id}/")).endswith("Northflank is unreachable.")
    assert len(requests_for(live, run_id)) == request_count > 0
    live.sandbox.faults = []
    live.connection.retry_at = 0
    assert client.get(f"/runs/{run_id}/").status_code == 302


def test_run_lookup_of_overlong_id_returns_404_without_requests(
    live: Live, client: httpx.Client, twelve_other_stages: int
) -> None:
    assert client.get(f"/runs/{'x' * 256}/").status_code == 404
    assert requests_for(live, "xxx") == []


def test_run_lookup_when_signed_out_makes_no_requests(live: Live, twelve_other_stages: int) -> None:
    with httpx.Client(base_url=live.base_url, follow_redirects=True) as bot:
        answer = bot.get(f"/runs/{UNKNOWN_RUN_ID}/")
    assert answer.url.path == "/accounts/login/"
    assert requests_for(live, UNKNOWN_RUN_ID) == []
