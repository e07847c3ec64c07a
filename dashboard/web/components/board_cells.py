"""The board: pipelines by project, all of them or those that an address asks for.

Nonsense in an address is ignored, and said so.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from urllib.parse import urlencode

from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.accounts.permissions import Rights
from dashboard.models import Pipeline
from dashboard.web.components import stage_cell
from dashboard.web.components.stage_cell import StageCell

LONGEST = 200  # characters of a text that is looked for


@dataclass(frozen=True, slots=True)
class Which:
    """Some pipelines, by how one of their stages is."""

    word: str | Promise
    has: Callable[[StageCell], bool]


SHOWN = {
    "": Which(gettext_lazy("All"), lambda _cell: True),
    "flight": Which(gettext_lazy("In flight"), lambda cell: cell.in_flight > 0),
    "attention": Which(gettext_lazy("Needs attention"), lambda cell: cell.needs_attention),
}


@dataclass
class BoardFilter:
    """What an address asks for: a text, and how a stage has to be."""

    text: str
    show: str
    ignored: list[str] = field(default_factory=list)  # sentences

    def __bool__(self) -> bool:
        return bool(self.text or self.show)

    @property
    def choices(self) -> list[tuple[str, str | Promise, bool]]:
        """The address, the word and whether it is chosen, of each way to choose."""
        return [(self._with(key), which.word, key == self.show) for key, which in SHOWN.items()]

    def names(self, pipeline: Pipeline) -> bool:
        """Say whether each word of the text is in the pipeline's name or its project's."""
        named = _names(pipeline)
        return all(word in named for word in self._words)

    @property
    def news(self) -> str:
        """Which changed stages bring their pipeline onto the page, for app.js: what `facts` say."""
        return json.dumps({"show": self.show, "words": self._words}) if self else "none"

    @property
    def _words(self) -> list[str]:
        return self.text.casefold().split()

    def _with(self, show: str) -> str:
        wanted = {"q": self.text, "show": show}
        return "?" + urlencode({name: value for name, value in wanted.items() if value})


def facts(pipeline: Pipeline, cell: StageCell) -> str:
    """Return what decides whether a stage brings its pipeline onto a board (BoardFilter.news)."""
    shows = [key for key, which in SHOWN.items() if which.has(cell)]
    return json.dumps({"shows": shows, "text": _names(pipeline)})


def _names(pipeline: Pipeline) -> str:
    of = pipeline.project
    return f"{of.name} {of.slug} {pipeline.name} {pipeline.slug}".casefold()


@dataclass(frozen=True, slots=True)
class PipelineRow:
    """A pipeline and its three stages; None where there is nothing to see."""

    name: str
    url: str
    cells: list[StageCell | None]


@dataclass(frozen=True, slots=True)
class ProjectRows:
    """The pipelines of a project."""

    name: str
    slug: str
    pipelines: list[PipelineRow]


def read(request: HttpRequest) -> BoardFilter:
    """Read the filter of an address."""
    text = request.GET.get("q", "").replace("\0", "").strip()
    show = request.GET.get("show", "")
    asked = BoardFilter(text[:LONGEST], show if show in SHOWN else "")
    if len(text) > LONGEST:
        asked.ignored.append(_("Only the first %(n)d characters are looked for.") % {"n": LONGEST})
    if show not in SHOWN:
        asked.ignored.append(
            _("There is no choice “%(show)s”: all pipelines are shown.") % {"show": show[:80]}
        )
    return asked


def projects(
    rights: Rights, asked: BoardFilter, cells: Mapping[int, list[StageCell]]
) -> list[ProjectRows]:
    """Return what is asked for of all pipelines that somebody may see, in their order.

    `cells` are those of each pipeline, by its key.
    """
    present = Pipeline.objects.filter(gone_at=None, project__gone_at=None)
    seen = present.filter(rights.projects("project")).select_related("project")
    has = SHOWN[asked.show].has
    wanted = [
        pipeline
        for pipeline in seen.order_by("project__slug", "slug")
        if asked.names(pipeline) and (not asked.show or any(map(has, cells.get(pipeline.pk, []))))
    ]
    return [
        ProjectRows(
            name=project.name,
            slug=project.slug,
            pipelines=[
                PipelineRow(
                    name=pipeline.name,
                    url=reverse("pipeline", args=[project.slug, pipeline.slug]),
                    cells=stage_cell.in_columns(cells.get(pipeline.pk, [])),
                )
                for pipeline in group
            ],
        )
        for project, group in groupby(wanted, key=lambda pipeline: pipeline.project)
    ]
