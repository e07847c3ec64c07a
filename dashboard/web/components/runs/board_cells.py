"""The board's rows: pipelines by project, filtered by the query string.

Invalid parameters are ignored with a warning.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from urllib.parse import urlencode

from django.http import QueryDict
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.accounts.permissions import Permissions
from dashboard.models import Pipeline
from dashboard.web.components.runs import stage_cell
from dashboard.web.components.runs.stage_cell import StageCell

MAX_QUERY_LENGTH = 200  # characters of a search text


@dataclass(frozen=True, slots=True)
class StageFilter:
    """A filter choice: pipelines with at least one stage that matches."""

    label: str | Promise
    matches: Callable[[StageCell], bool]


STAGE_FILTERS = {
    "": StageFilter(gettext_lazy("All"), lambda _cell: True),
    "flight": StageFilter(gettext_lazy("In flight"), lambda cell: cell.in_flight_count > 0),
    "attention": StageFilter(gettext_lazy("Needs attention"), lambda cell: cell.needs_attention),
}


@dataclass
class BoardFilter:
    """The filter in a query string: a search text, and a key of STAGE_FILTERS."""

    q: str
    show: str
    warnings: list[str] = field(default_factory=list)  # about ignored parameters, for the user

    def __bool__(self) -> bool:
        return bool(self.q or self.show)

    @property
    def choices(self) -> list[tuple[str, str | Promise, bool]]:
        """(address, label, is selected) of each choice in STAGE_FILTERS."""
        return [
            (self._url(key), stage_filter.label, key == self.show)
            for key, stage_filter in STAGE_FILTERS.items()
        ]

    def matches_name(self, pipeline: Pipeline) -> bool:
        """Return whether the name of the pipeline or project contains each word of the text."""
        name = _searchable_name(pipeline)
        return all(word in name for word in self._search_words)

    @property
    def query(self) -> str:
        """The filter as a query string; empty for all pipelines."""
        parameters = {"q": self.q, "show": self.show}
        return urlencode({name: value for name, value in parameters.items() if value})

    @property
    def _search_words(self) -> list[str]:
        return self.q.casefold().split()

    def _url(self, show: str) -> str:
        return f"?{replace(self, show=show).query}"


def _searchable_name(pipeline: Pipeline) -> str:
    project = pipeline.project
    return f"{project.name} {project.slug} {pipeline.name} {pipeline.slug}".casefold()


@dataclass(frozen=True, slots=True)
class PipelineRow:
    """A pipeline and its three stages; None for a stage that is missing or not visible."""

    name: str
    url: str
    cells: list[StageCell | None]


@dataclass(frozen=True, slots=True)
class ProjectRows:
    """A project and its pipelines."""

    name: str
    slug: str
    pipelines: list[PipelineRow]


def parse(parameters: QueryDict) -> BoardFilter:
    """Return the filter in the query string; ignore invalid parameters and add warnings."""
    q = parameters.get("q", "").replace("\0", "").strip()
    show = parameters.get("show", "")
    board_filter = BoardFilter(q[:MAX_QUERY_LENGTH], show if show in STAGE_FILTERS else "")
    if len(q) > MAX_QUERY_LENGTH:
        board_filter.warnings.append(
            _("Only the first %(n)d characters are searched.") % {"n": MAX_QUERY_LENGTH}
        )
    if show not in STAGE_FILTERS:
        board_filter.warnings.append(
            _("Unknown filter “%(show)s” ignored; showing all pipelines.") % {"show": show[:80]}
        )
    return board_filter


def projects(
    permissions: Permissions, board_filter: BoardFilter, cells: Mapping[int, list[StageCell]]
) -> list[ProjectRows]:
    """Return the visible pipelines that match the filter, by project, sorted by slug.

    `cells` are the stage cells by pipeline key.
    """
    listed = Pipeline.objects.filter(removed_at=None, project__removed_at=None)
    visible = listed.filter(permissions.project_filter("project")).select_related("project")
    matches = STAGE_FILTERS[board_filter.show].matches
    pipelines = [
        pipeline
        for pipeline in visible.order_by("project__slug", "slug")
        if board_filter.matches_name(pipeline)
        and (not board_filter.show or any(map(matches, cells.get(pipeline.pk, []))))
    ]
    return [
        ProjectRows(
            name=project.name,
            slug=project.slug,
            pipelines=[
                PipelineRow(
                    name=pipeline.name,
                    url=reverse("pipeline", args=[project.slug, pipeline.slug]),
                    cells=stage_cell.by_column(cells.get(pipeline.pk, [])),
                )
                for pipeline in group
            ],
        )
        for project, group in groupby(pipelines, key=lambda pipeline: pipeline.project)
    ]
