"""Search for a run by id: it reads the lists of the stages, and its page shows the progress."""

from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from django.contrib.auth.models import User

from dashboard.db.threads import now
from dashboard.models import CatalogSync, Grant, RateBudget, ReadRequest, Run, Stage
from dashboard.models.sync.read_requests import SEARCH_AHEAD
from tests.support import factories, live_runs
from tests.support.html import HTMX, parse_html, select_one, text_of
from tests.support.live import Live
from tests.support.live_runs import LEDGER, SEARCH, wait_until

UNKNOWN_RUN_ID = "00000000-0000-4000-8000-000000000000"
LEDGER_PRODUCTION = ("payments", "ledger", "Production")


@pytest.fixture
def client(live: Live, viewer: User) -> httpx.Client:
    live.sandbox.rate_limit_window.limit = 1000
    return live.sign_in("viewer")


@pytest.fixture
def three_stages(live: Live) -> None:
    """Three stages of the sandbox that were read a minute ago, and are due in an hour."""
    for place in (LEDGER, LEDGER_PRODUCTION, SEARCH):
        live_runs.stage(place)
    past, future = now() - timedelta(minutes=1), now() + timedelta(hours=1)
    Stage.objects.update(synced_at=past, flow_synced_at=past)
    Stage.objects.update(next_sync_at=future, fresh_until=future)


@pytest.fixture
def syncing(live: Live) -> Iterator[None]:
    """A worker that ticks, and so answers."""
    with live.ticking():
        yield


def search_status(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return text_of(select_one(parse_html(answer), "[data-search]"))


def reload_until_search_ends(client: httpx.Client, address: str) -> httpx.Response:
    """Reload a page, as it does by itself, until the search has ended."""

    def reload() -> httpx.Response | None:
        answer = client.get(address)
        return answer if answer.status_code != 200 else None

    answer = wait_until(reload, interval=0.1)
    assert answer is not None
    return answer


def end_search() -> None:
    """Record that every stage was read just now."""
    Stage.objects.update(synced_at=now())


def ledger_staging_run_address(run_id: str) -> str:
    return f"/projects/payments/pipelines/ledger/release-flows/staging/runs/{run_id}"


# --- Which stages are searched -------------------------------------------------------------------


@pytest.mark.usefixtures("three_stages", "syncing")
def test_run_search_reads_lists_until_run_is_found_and_keeps_the_query(
    live: Live, client: httpx.Client
) -> None:
    run_id = live_runs.start_run(live, LEDGER)
    answer = reload_until_search_ends(client, f"/runs/{run_id}/?from=alert&x=a%2Fb")
    run = Run.objects.with_stage().get(run_id=run_id)
    assert answer.status_code == 302
    assert answer.headers["location"] == f"{factories.address(run)}?from=alert&x=a%2Fb"


@pytest.mark.usefixtures("three_stages")
@pytest.mark.parametrize(
    ("hint", "stages"),
    [
        ("pipeline=LEDGER", {LEDGER, LEDGER_PRODUCTION}),
        ("project=shop", {SEARCH}),
        ("pipeline=ledger&stage=staging", {LEDGER}),
        ("pipeline=ledger&project=a-wrong-one", {LEDGER, LEDGER_PRODUCTION, SEARCH}),
        ("project=x&pipeline=%00&stage=y", {LEDGER, LEDGER_PRODUCTION, SEARCH}),
    ],
)
def test_run_search_with_hints_searches_the_stages_that_match_them_or_all(
    hint: str, stages: set[tuple[str, str, str]], client: httpx.Client
) -> None:
    assert client.get(f"/runs/{UNKNOWN_RUN_ID}/?{hint}").status_code == 200
    place = ("pipeline__project__slug", "pipeline__slug", "name")
    searched = Stage.objects.filter(pk__in=ReadRequest.objects.get().stages)
    assert set(searched.values_list(*place)) == stages


@pytest.mark.usefixtures("three_stages")
@pytest.mark.parametrize(
    ("hint", "text"),
    [
        ("project=shop", "the one stage searched."),
        ("project=payments", "any of the 2 stages searched."),
        ("project=none", "any of the 3 stages searched."),
    ],
)
def test_not_found_page_says_what_was_searched(hint: str, text: str, client: httpx.Client) -> None:
    address = f"/runs/{UNKNOWN_RUN_ID}/?{hint}"
    client.get(address)
    end_search()
    html = parse_html(client.get(address))
    assert text_of(select_one(html, "[data-reason]")) == (
        f"Run “{UNKNOWN_RUN_ID}” not found. It is not among the newest 100 runs of {text}"
        " It may have been deleted, or the link is incomplete."
    )
    next_links = [(link.text(), link.attributes["href"]) for link in html.css(".next-links a")]
    offers_all = ("Search all stages", f"/runs/{UNKNOWN_RUN_ID}/") in next_links
    assert offers_all == (hint != "project=none")


@pytest.mark.usefixtures("three_stages")
@pytest.mark.parametrize("stage", ["staging", "Staging"])
def test_run_search_with_complete_hint_redirects_and_is_answered_by_one_request(
    stage: str, live: Live, client: httpx.Client
) -> None:
    factories.search(reads=10_000)
    run_id = live_runs.start_run(live, LEDGER)
    hint = f"project=Payments&pipeline=ledger&stage={stage}&from=alert"
    answer = client.get(f"/runs/{run_id}/?{hint}")
    assert answer.status_code == 302
    assert answer.headers["location"] == f"{ledger_staging_run_address(run_id)}/?{hint}"
    assert not Run.objects.filter(run_id=run_id).exists()
    with live.ticking():
        assert client.get(answer.headers["location"]).status_code == 200
    assert ReadRequest.objects.links().get().reads == 1


@pytest.mark.usefixtures("three_stages")
def test_run_search_searches_only_visible_stages(
    live: Live, client: httpx.Client, viewer: User
) -> None:
    Grant.objects.all().delete()
    factories.grant("view", "shop", viewer, project=factories.project("shop"), stage="Production")
    answer = client.get(f"/runs/{UNKNOWN_RUN_ID}/?project=payments&pipeline=ledger")
    assert search_status(answer).startswith("0 of 1 stages searched")
    assert "ledger" not in answer.text.replace("pipeline=ledger", "")
    [key] = ReadRequest.objects.get().stages
    assert Stage.objects.get(pk=key).pipeline.slug == "search"


# --- Its progress --------------------------------------------------------------------------------


@pytest.mark.usefixtures("three_stages")
def test_run_search_page_says_what_is_searched_and_when_the_rest_is_read(
    client: httpx.Client,
) -> None:
    factories.leader()
    address = f"/runs/{UNKNOWN_RUN_ID}/"
    status = search_status(client.get(address))
    assert status == "0 of 3 stages searched, not found yet."
    ReadRequest.objects.update(requested_at=now() - SEARCH_AHEAD)
    Stage.objects.filter(name="Staging").update(synced_at=now())
    html = parse_html(client.get(address))
    status = text_of(select_one(html, "[data-search]"))
    assert status.startswith(
        "1 of 3 stages searched, not found yet. The other stages will be read by "
    )
    planned_at = select_one(html, "[data-search] time").attributes["datetime"]
    assert planned_at == Stage.objects.latest("next_sync_at").next_sync_at.isoformat()


@pytest.mark.usefixtures("three_stages")
def test_search_whose_reads_are_used_up_says_when_it_goes_on(client: httpx.Client) -> None:
    factories.leader()
    factories.search(reads=300)
    budget = {"limit": 1000, "remaining": 700, "resets_at": now() + timedelta(minutes=30)}
    RateBudget.objects.create(**budget, synced_at=now())
    answer = client.get(f"/runs/{UNKNOWN_RUN_ID}/")
    assert "The other stages will be read by " in search_status(answer)


@pytest.mark.usefixtures("three_stages")
def test_run_search_while_no_process_reads_says_so(client: httpx.Client) -> None:
    assert "Sync is not running" in search_status(client.get(f"/runs/{UNKNOWN_RUN_ID}/"))
    answer = client.get(f"{ledger_staging_run_address(UNKNOWN_RUN_ID)}/")
    assert answer.status_code == 404
    assert "Sync is not running" in text_of(select_one(parse_html(answer), "[data-reason]"))


def test_run_search_before_first_catalog_read_reports_listing_in_progress(
    live: Live, client: httpx.Client
) -> None:
    CatalogSync.objects.create(project=None, next_sync_at=now())
    assert "still being read" in search_status(client.get(f"/runs/{UNKNOWN_RUN_ID}/"))


@pytest.mark.usefixtures("three_stages")
def test_run_search_page_reloads_after_run_was_read(live: Live, client: httpx.Client) -> None:
    run_id = live_runs.start_run(live, LEDGER)
    address = f"/runs/{run_id}/?from=alert"
    page = select_one(parse_html(client.get(address)), "#live")
    assert page.attributes["hx-get"] == address
    answer = client.get(address, headers=HTMX)
    assert "HX-Refresh" not in answer.headers
    assert "0 of 3" in search_status(answer)
    live_runs.mirror_run(live, LEDGER, run_id)
    assert client.get(address, headers=HTMX).headers["HX-Refresh"] == "true"
    assert client.get(address).status_code == 302


@pytest.mark.usefixtures("three_stages")
def test_run_search_page_reloads_after_all_stages_were_read(client: httpx.Client) -> None:
    address = f"/runs/{UNKNOWN_RUN_ID}/"
    assert client.get(address, headers=HTMX).status_code == 200
    end_search()
    assert client.get(address, headers=HTMX).headers["HX-Refresh"] == "true"
    assert client.get(address).status_code == 404


def test_run_search_of_overlong_id_returns_404_without_a_request(
    live: Live, client: httpx.Client
) -> None:
    factories.stage()
    assert client.get(f"/runs/{'x' * 256}/").status_code == 404
    assert not ReadRequest.objects.exists()


def test_run_search_when_signed_out_asks_for_nothing(live: Live) -> None:
    factories.stage()
    with httpx.Client(base_url=live.base_url, follow_redirects=True) as bot:
        answer = bot.get(f"/runs/{UNKNOWN_RUN_ID}/")
    assert answer.url.path == "/accounts/login/"
    assert not ReadRequest.objects.exists()
