"""Links that leave the dashboard: whole addresses of its own pages, and Northflank's."""

from urllib.parse import quote

from django.conf import settings

from dashboard.models import Run, Upstream

# The project's page is the deepest address known to exist; a run's own is not documented.
DEFAULT_TEMPLATE = "https://app.northflank.com/t/{team}/project/{project}"


def whole(path: str) -> str:
    """Return the whole address of a page's path, where the dashboard's own is known (BASE_URL)."""
    origin: str = settings.BASE_URL.removesuffix(settings.FORCE_SCRIPT_NAME or "")
    return origin + path


def team() -> str:
    """Return the slug of the team whose runs these are; empty where it is not known."""
    known = Upstream.objects.first()
    return settings.NORTHFLANK_TEAM_ID or (known.team if known else "")


def northflank_url(run: Run) -> str:
    """Return the address of a run on Northflank; empty for the sandbox and without a team."""
    if settings.SANDBOX and not settings.NORTHFLANK_RUN_URL_TEMPLATE:
        return ""
    template = settings.NORTHFLANK_RUN_URL_TEMPLATE or DEFAULT_TEMPLATE
    of_team = team()
    if "{team}" in template and not of_team:
        return ""
    pipeline = run.stage.pipeline
    parts = {
        "team": of_team,
        "project": pipeline.project.slug,
        "pipeline": pipeline.slug,
        "stage": run.stage.spelling,
        "run": run.run_id,
    }
    return str(template.format(**{name: quote(part, safe="") for name, part in parts.items()}))
