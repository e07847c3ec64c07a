"""Links to Northflank's own pages."""

from urllib.parse import quote

from django.conf import settings

from dashboard.models import Run, Upstream

# The project's page is the deepest address known to exist; a run's own is not documented.
DEFAULT_TEMPLATE = "https://app.northflank.com/t/{team}/project/{project}"


def northflank_url(run: Run) -> str:
    """Return the address of a run on Northflank; empty for the sandbox and without a team."""
    if settings.SANDBOX and not settings.NORTHFLANK_RUN_URL_TEMPLATE:
        return ""
    template = settings.NORTHFLANK_RUN_URL_TEMPLATE or DEFAULT_TEMPLATE
    known = Upstream.objects.first()
    team = settings.NORTHFLANK_TEAM_ID or (known.team if known else "")
    if "{team}" in template and not team:
        return ""
    pipeline = run.stage.pipeline
    parts = {
        "team": team,
        "project": pipeline.project.slug,
        "pipeline": pipeline.slug,
        "stage": run.stage.path or run.stage.name.lower(),
        "run": run.run_id,
    }
    return str(template.format(**{name: quote(part, safe="") for name, part in parts.items()}))
