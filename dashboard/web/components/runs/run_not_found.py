"""A run that is not in the mirror: its 404 page."""

from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dashboard.accounts.permissions import Permissions
from dashboard.models import Stage
from dashboard.texts.rich_text import MessageTable, RichText, join_texts
from dashboard.web.http import lookup, run_hints
from dashboard.web.http.links import run_url
from dashboard.web.http.lookup import PageNotFound
from dashboard.web.http.run_hints import Candidates

_text = MessageTable(
    {
        "not_found": gettext_lazy("Run “%(run)s” not found."),
        "not_in_stages": lambda n: ngettext(
            "It is not among the newest 100 runs of the one stage searched.",
            "It is not among the newest 100 runs of any of the %(n)s stages searched.",
            n,
        ),
        "may_be_deleted": gettext_lazy("It may have been deleted, or the link is incomplete."),
    }
)


def not_found(
    request: HttpRequest, permissions: Permissions, run_id: str, candidates: Candidates
) -> PageNotFound:
    """Return the 404 for a finished search: the stages searched, and links to continue."""
    n = len(candidates.stage_keys)
    message = join_texts(
        _text("not_found", run=run_id),
        _text("not_in_stages", n=n) if n else "",
        _text("may_be_deleted"),
    )
    links = [_search_all_link(run_id, candidates.total)] if candidates.is_narrowed else []
    return PageNotFound(
        message,
        *links,
        run_link=_run_link(permissions, run_id),
    )


def not_found_in_stage(
    stage: Stage, permissions: Permissions, run_id: str, reason: RichText
) -> PageNotFound:
    """Return the 404 for a run that was sought in one stage only and not found."""
    stage_count = run_hints.candidate_stages(permissions, run_hints.NO_HINTS).total
    links = [_search_all_link(run_id, stage_count)] if stage_count > 1 else []
    return lookup.run_not_found(
        stage,
        run_id,
        reason,
        *links,
        run_link=_run_link(permissions, run_id),
    )


def _run_link(permissions: Permissions, run_id: str) -> tuple[str, str] | None:
    """Return the label and URL of the newest mirrored run with this id, wherever it is, or None."""
    run = run_hints.find_run(permissions, run_hints.NO_HINTS, run_id)
    if run is None:
        return None
    return _("Run “%(run)s” in %(stage)s") % {"run": run_id, "stage": run.stage}, run_url(run)


def _search_all_link(run_id: str, stage_count: int) -> tuple[str, str]:
    label = ngettext("Search the one stage", "Search all %(n)s stages", stage_count) % {
        "n": stage_count
    }
    return label, reverse("run_search", args=[run_id])
