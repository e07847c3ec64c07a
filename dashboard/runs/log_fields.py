"""The fields of a log event that lead from an alert to its run."""

from django.conf import settings
from django.urls import reverse

from dashboard.models import Run


def run_fields(run: Run) -> dict[str, str]:
    """Return a run's id, place and address, as in the API; without BASE_URL only a path.

    `run` must be loaded with its stage.
    """
    pipeline = run.stage.pipeline
    project, stage = pipeline.project.slug, run.stage.name
    path = reverse("run", args=[project, pipeline.slug, stage.lower(), run.run_id])
    return {
        "run": run.run_id,
        "project": project,
        "pipeline": pipeline.slug,
        "stage": stage,
        "url": absolute_url(path),
    }


def absolute_url(path: str) -> str:
    """Return the absolute URL of a path if BASE_URL is set, else the path."""
    origin: str = settings.BASE_URL.removesuffix(settings.FORCE_SCRIPT_NAME or "")
    return origin + path
