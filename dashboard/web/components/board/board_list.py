"""The pipelines that the board lists: their order, one page of them, and how many there are.

Those that need attention come first, then those with runs in flight, then all others; within each
group by project and name. A page has a number, since a pipeline may change its group at any time.
"""

from collections.abc import Set
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, lru_cache

from django.utils.translation import gettext as _

from dashboard.accounts.permissions import Permissions
from dashboard.db.prepared import Keys, PreparedQuery
from dashboard.models import Pipeline, Stage
from dashboard.web.components.board.board_filter import BoardFilter

PER_PAGE = 100  # at most 250 kB of HTML: bench/stages.py


class Group(IntEnum):
    """The groups of pipelines, in the order of the board."""

    ATTENTION = 0
    IN_FLIGHT = 1
    OTHER = 2

    @property
    def title(self) -> str:
        """Its heading."""
        return {
            Group.ATTENTION: _("Needs attention"),
            Group.IN_FLIGHT: _("In flight"),
            Group.OTHER: _("Nothing in flight"),
        }[self]


@dataclass(frozen=True, slots=True)
class PageOfPipelines:
    """One page of the pipelines that match a filter, and the numbers of all that do."""

    groups: dict[int, Group]  # by pipeline key, in the order of the board
    number: int
    page_count: int
    total: int
    counts: dict[str, int]  # pipelines that match the text, by key of board_filter.CHOICES

    @property
    def text(self) -> str:
        """Which pipelines the page lists, and of how many."""
        first = (self.number - 1) * PER_PAGE + 1
        last = first + len(self.groups) - 1
        template = _("%(first)s–%(last)s of %(total)s pipelines")
        return template % {"first": f"{first:,}", "last": f"{last:,}", "total": f"{self.total:,}"}


def find_page(
    permissions: Permissions,
    board_filter: BoardFilter,
    *,
    attention_stages: Set[int],
    in_flight_stages: Set[int],
    project: int = 0,
) -> PageOfPipelines:
    """Return the filter's page of the visible pipelines, of one project if its key is given.

    Past the last page it is the last. `attention_stages` and `in_flight_stages` are the keys of the
    stages with such runs.
    """
    pairs = _pipelines_query().fetch(stages=attention_stages | in_flight_stages)
    attention = {pipeline for stage, pipeline in pairs if stage in attention_stages}
    in_flight = {pipeline for stage, pipeline in pairs if stage in in_flight_stages}
    keys = _matching_keys(permissions, board_filter, project)
    keys_by_choice = {
        "": keys,
        "flight": [key for key in keys if key in in_flight],
        "attention": [key for key in keys if key in attention],
    }

    def group(key: int) -> Group:
        if key in attention:
            return Group.ATTENTION
        return Group.IN_FLIGHT if key in in_flight else Group.OTHER

    sorted_keys = sorted(keys_by_choice[board_filter.show], key=group)
    page_count = max(-(-len(sorted_keys) // PER_PAGE), 1)
    number = min(board_filter.page, page_count)
    start = (number - 1) * PER_PAGE
    return PageOfPipelines(
        groups={key: group(key) for key in sorted_keys[start : start + PER_PAGE]},
        number=number,
        page_count=page_count,
        total=len(sorted_keys),
        counts={choice: len(matches) for choice, matches in keys_by_choice.items()},
    )


@cache
def _pipelines_query() -> PreparedQuery:
    stages = Stage.objects.filter(pk__in=Keys("stages")).order_by()
    return PreparedQuery(stages.values_list("pk", "pipeline"))


def _matching_keys(permissions: Permissions, board_filter: BoardFilter, project: int) -> list[int]:
    # Not by the database: SQLite ignores the case of ASCII letters only.
    names = ("project__name", "project__slug", "name", "slug") if board_filter.q else ()
    rows = _listed_query(permissions, ("pk", "project", *names)).fetch()
    return [
        pk
        for pk, project_pk, *texts in rows
        if project in {0, project_pk}
        and (board_filter.mine is None or pk in board_filter.mine)
        and board_filter.matches_text(*texts)
    ]


@lru_cache(maxsize=100)
def _listed_query(permissions: Permissions, columns: tuple[str, ...]) -> PreparedQuery:
    pipelines = Pipeline.objects.filter(removed_at=None, project__removed_at=None)
    visible = pipelines.filter(permissions.project_filter("project"))
    return PreparedQuery(visible.order_by("project__slug", "slug").values_list(*columns))
