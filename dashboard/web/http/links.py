"""URLs: the arguments of stage pages, absolute URLs, and links to Northflank."""

import contextlib
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest
from django.urls import Resolver404, get_script_prefix, resolve, reverse
from django.utils.translation import gettext_lazy

from dashboard.db.prepared import PreparedQuery
from dashboard.models import Pipeline, Run, Stage, Upstream
from dashboard.runs import log_fields
from dashboard.texts.rich_text import Message, MessageTable
from dashboard.web.http import converters

# The project's page is the deepest URL known to exist; the URL of a run is not documented.
DEFAULT_RUN_URL_TEMPLATE = "https://app.northflank.com/t/{team}/project/{project}"
# The addresses of forms that are below that of their page.
_FORMS_OF_PAGES = {"abort", "abort_left", "dismiss", "end_request", "refresh_run", "refresh_stage"}
_text = MessageTable(
    {
        "run": gettext_lazy("Open this run on Northflank"),
        "project": gettext_lazy("Open the project on Northflank"),
        "northflank": gettext_lazy("Open Northflank"),
    }
)


def stage_url_args(stage: Stage) -> list[str]:
    """Return the URL arguments of a stage: project slug, pipeline slug, lower-case stage name."""
    return [stage.pipeline.project.slug, stage.pipeline.slug, stage.name.lower()]


class RunUrls(NamedTuple):
    """The paths of a run's page and of its actions."""

    page: str
    abort: str
    acknowledge: str
    dismiss: str


class StageUrls(NamedTuple):
    """The paths of a stage's page, of its pipeline's, and what is around a run's id in its own."""

    pipeline: str
    page: str
    around_run: tuple[tuple[str, str], ...]  # for each of `RunUrls`

    def of_run(self, run_id: str) -> RunUrls:
        """Return the paths of one of the stage's runs."""
        segment = converters.path_segment(run_id)
        return RunUrls(*(f"{before}{segment}{after}" for before, after in self.around_run))


def stage_urls(stage: Stage) -> StageUrls:
    """Return the paths of a stage and its runs; `stage` must be loaded with its pipeline."""
    return _reverse_stage(get_script_prefix(), *stage_url_args(stage))


@lru_cache(maxsize=4096)  # a page of 100 rows has 500 paths: a third of a row's cost was `reverse`
def _reverse_stage(_script_prefix: str, *stage_args: str) -> StageUrls:
    names = "run", "abort", "acknowledge", "dismiss"
    paths = (reverse(name, args=[*stage_args, "0"]) for name in names)
    return StageUrls(
        _reverse_pipeline(_script_prefix, *stage_args[:2]),
        reverse("stage", args=stage_args),
        tuple((before, after) for before, _id, after in (path.rpartition("0") for path in paths)),
    )


def pipeline_url(pipeline: Pipeline) -> str:
    """Return the path of a pipeline's page; `pipeline` must be loaded with its project."""
    return _reverse_pipeline(get_script_prefix(), pipeline.project.slug, pipeline.slug)


@lru_cache(maxsize=4096)
def _reverse_pipeline(_script_prefix: str, *pipeline_args: str) -> str:
    return reverse("pipeline", args=pipeline_args)


def stage_url(stage: Stage) -> str:
    """Return the path of a stage's page."""
    return stage_urls(stage).page


def run_url(run: Run) -> str:
    """Return the path of a run's page; `run` must be loaded with its stage."""
    return stage_urls(run.stage).of_run(run.run_id).page


def logs_url(run: Run) -> str:
    """Return the path of the page with what a run waits for, and its log."""
    return f"{run_url(run)}logs/"


absolute_url = log_fields.absolute_url


def team_slug() -> str:
    """Return the slug of the team that owns the runs; empty if unknown."""
    rows = _team_query().fetch()
    return settings.NORTHFLANK_TEAM_ID or (rows[0][0] if rows else "")


@cache
def _team_query() -> PreparedQuery:
    return PreparedQuery(Upstream.objects.order_by("pk").values_list("team")[:1])


@dataclass(frozen=True, slots=True)
class NorthflankLink:
    """A link from a run to Northflank's web application."""

    url: str
    label: Message  # what it opens
    opens_run: bool  # else the user has to find the run there


def northflank_link(run: Run) -> NorthflankLink | None:
    """Return the link to Northflank; None for the sandbox and without a team."""
    if settings.SANDBOX and not settings.NORTHFLANK_RUN_URL_TEMPLATE:
        return None
    template = settings.NORTHFLANK_RUN_URL_TEMPLATE or DEFAULT_RUN_URL_TEMPLATE
    slug = team_slug()
    if "{team}" in template and not slug:
        return None
    pipeline = run.stage.pipeline
    parts = {
        "team": slug,
        "project": pipeline.project.slug,
        "pipeline": pipeline.slug,
        "stage": run.stage.name.lower(),
        "run": run.run_id,
    }
    url = template.format(**{name: quote(part, safe="") for name, part in parts.items()})
    opens_run = "{run}" in template
    is_default = template == DEFAULT_RUN_URL_TEMPLATE
    label = _text("run" if opens_run else "project" if is_default else "northflank")
    return NorthflankLink(url, label, opens_run=opens_run)


def form_page_url(request: HttpRequest) -> str:
    """Return the URL of the page a form belongs to: that of its run or stage, or the first page."""
    match = request.resolver_match
    if match is None:  # the request was answered before its URL was resolved
        with contextlib.suppress(Resolver404):
            match = resolve(request.path_info)
    if match is not None and match.url_name in _FORMS_OF_PAGES:
        return request.path.rstrip("/").rpartition("/")[0] + "/"
    return reverse("now")
