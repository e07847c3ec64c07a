"""Omitted entries: those of Northflank's lists that could not be mirrored, and why.

The pages of one list are read at different times, the older ones once. So each page has its own
counts, as of its last read. A list filtered by `concluded` is not counted: it repeats entries of
the pages.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import structlog
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard.models import CatalogSync, Stage
from dashboard.models.catalog import ID_LENGTH, ListDefects
from dashboard.northflank import Omission, Page

log = structlog.get_logger(__name__)

type CountsByPage = dict[str, dict[Omission, int]]


def record_stage_page(stage: Stage, page_number: int, page: Page[Any]) -> None:
    """Store the omitted entries of one page of a stage's runs."""
    by_page: CountsByPage = {
        number: counts
        for number, counts in stage.omitted_by_page.items()
        if page.has_next or int(number) < page_number  # the list may have become shorter
    }
    by_page.pop(str(page_number), None)
    if page.omitted:
        by_page[str(page_number)] = dict(page.omitted)
    _record(stage, by_page, name=str(stage))


def record_catalog_list(catalog_sync: CatalogSync, whole_list: Page[Any], *, name: str) -> None:
    """Store the omitted entries of a list of projects or pipelines, read as one page."""
    _record(catalog_sync, {"1": dict(whole_list.omitted)} if whole_list.omitted else {}, name=name)


def _record(mirrored_list: ListDefects, by_page: CountsByPage, *, name: str) -> None:
    """Store the counts, and log when the list becomes incomplete and when it is complete again."""
    if by_page == mirrored_list.omitted_by_page:
        return
    was_partial = mirrored_list.is_partial
    mirrored_list.omitted_by_page = by_page
    mirrored_list.save(update_fields=["omitted_by_page"])
    if was_partial and not by_page:
        log.info("list.complete", list=name)
    elif not was_partial:
        omitted = mirrored_list.omitted
        surplus = omitted[Omission.SURPLUS]
        log.warning(
            "list.incomplete", left_out=omitted.total() - surplus, surplus=surplus, list=name
        )


def load(stages: QuerySet[Stage]) -> Counter[str]:
    """Return the number of omitted runs of these stages by reason (`Omission`)."""
    omitted: Counter[str] = Counter()
    for stage in stages.exclude(omitted_by_page={}).only("omitted_by_page"):
        omitted.update(stage.omitted)
    return omitted


def message(omitted: Mapping[str, int]) -> str:
    """Return how many entries are omitted and why, given their number by reason; empty if none."""
    if not omitted:
        return ""
    total = sum(omitted.values())
    template = ngettext(
        "%(n)s entry of Northflank’s list cannot be shown: %(reasons)s.",
        "%(n)s entries of Northflank’s list cannot be shown: %(reasons)s.",
        total,
    )
    reasons = [
        (_reason_text(omission), omitted[omission]) for omission in Omission if omission in omitted
    ]
    texts = [f"{text} ({n:,})" if len(reasons) > 1 else text for text, n in reasons]
    return template % {"n": f"{total:,}", "reasons": ", ".join(texts)}


def _reason_text(reason: Omission) -> str:
    return {
        Omission.NO_ID: _("no valid ID"),
        Omission.LONG_ID: _("ID longer than %(n)d characters") % {"n": ID_LENGTH},
        Omission.DUPLICATE_ID: _("ID of another entry"),
        Omission.UNREADABLE: _("unreadable"),
        Omission.SURPLUS: _("more than requested"),
    }[reason]
