"""Bulk aborts: request them, and what was sent for them."""

from typing import Any
from uuid import UUID, uuid4

from django.contrib.auth.models import User
from selectolax.lexbor import LexborHTMLParser

from dashboard.aborts.bulk_request import request_bulk_abort
from dashboard.aborts.request import AbortRequest
from dashboard.models import BulkAbort, Run
from dashboard.models.bulk_aborts import BulkAbortItemResult
from tests.support import factories
from tests.support.html import select_one, text_of
from tests.support.live import Live

BULK_PATH = "/aborts/bulk/new/"
PIPELINE = "/projects/shop/pipelines/checkout/"


def request_bulk(
    runs: list[Run],
    user: User,
    *,
    reason: str = "Stuck",
    key: UUID | None = None,
    typed_count: str | None = None,
) -> Any:
    """Request a bulk abort; the number of runs is typed correctly unless `typed_count` is given."""
    run_keys = [run.pk for run in runs]
    return request_bulk_abort(
        run_keys,
        AbortRequest(user, reason),
        key or uuid4(),
        typed_count=str(len(set(run_keys))) if typed_count is None else typed_count,
    )


def sent_run_ids(live: Live) -> list[str]:
    """The runs whose abort was sent, in order."""
    aborts = [path for method, path in live.sandbox.requests if method == "POST"]
    return [path.split("/")[-2] for path in aborts if path.endswith("/abort")]


def confirmation_address(*runs: Run) -> str:
    return f"{BULK_PATH}?{'&'.join(f'run={run.pk}' for run in runs)}"


def abort_all_address(html: LexborHTMLParser) -> str:
    """The address that the "abort all" button of a page opens."""
    fields = select_one(html, ".abort-all form").css("input")
    query = "&".join(f"{field.attributes['name']}={field.attributes['value']}" for field in fields)
    return f"{BULK_PATH}?{query}"


def confirmed_run_keys(html: LexborHTMLParser) -> list[str | None]:
    """The runs that the form of a confirmation holds."""
    return [box.attributes["value"] for box in html.css('form[method="post"] [name="run"]')]


def excluded_text(html: LexborHTMLParser) -> str:
    return text_of(select_one(html, ".excluded"))


def bulk_abort_of(runs: list[Run], user: User, *results: str) -> BulkAbort:
    batch = request_bulk_abort([run.pk for run in runs], AbortRequest(user, "Why"), uuid4())
    for item, result in zip(batch.items.all(), results, strict=False):
        item.result = BulkAbortItemResult(result)
        if result == "abort":
            item.abort = factories.abort(item.run, user)
        item.save(update_fields=["result", "abort"])
    return batch
