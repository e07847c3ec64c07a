"""URLs: the arguments of stage pages, absolute URLs, and links to Northflank."""

from urllib.parse import quote

from django.conf import settings
from django.urls import reverse

from dashboard.models import Run, Stage, Upstream

# The project's page is the deepest URL known to exist; the URL of a run is not documented.
DEFAULT_RUN_URL_TEMPLATE = "https://app.northflank.com/t/{team}/project/{project}"


def stage_url_args(stage: Stage) -> list[str]:
    """Return the URL arguments of a stage: project slug, pipeline slug, lower-case stage name."""
    return [stage.pipeline.project.slug, stage.pipeline.slug, stage.name.lower()]


def stage_url(stage: Stage) -> str:
    """Return the path of a stage's page."""
    return reverse("stage", args=stage_url_args(stage))


def run_url(run: Run) -> str:
    """Return the path of a run's page; `run` must be loaded with its stage."""
    return reverse("run", args=[*stage_url_args(run.stage), run.run_id])


def absolute_url(path: str) -> str:
    """Return the absolute URL of a path if BASE_URL is set, else the path."""
    origin: str = settings.BASE_URL.removesuffix(settings.FORCE_SCRIPT_NAME or "")
    return origin + path


def team_slug() -> str:
    """Return the slug of the team that owns the runs; empty if unknown."""
    upstream = Upstream.objects.first()
    return settings.NORTHFLANK_TEAM_ID or (upstream.team if upstream else "")


def northflank_url(run: Run) -> str:
    """Return the URL of a run on Northflank; empty for the sandbox and without a team."""
    if settings.SANDBOX and not settings.NORTHFLANK_RUN_URL_TEMPLATE:
        return ""
    template = settings.NORTHFLANK_RUN_URL_TEMPLATE or DEFAULT_RUN_URL_TEMPLATE
    slug = team_slug()
    if "{team}" in template and not slug:
        return ""
    pipeline = run.stage.pipeline
    parts = {
        "team": slug,
        "project": pipeline.project.slug,
        "pipeline": pipeline.slug,
        "stage": run.stage.path_segment,
        "run": run.run_id,
    }
    return str(template.format(**{name: quote(part, safe="") for name, part in parts.items()}))
