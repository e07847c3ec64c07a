"""The pages for tests that cover all of them."""

from dashboard.models import Run
from tests.support import factories

PAGES = ["now", "board", "pipeline", "stage", "run"]


LIVE_PAGES = [*PAGES, "health"]  # which shows no runs


ALL_PAGES = [*LIVE_PAGES, "abort", "missing"]


def address_of(name: str, run: Run) -> str:
    return {
        "now": "/",
        "board": "/board/",
        "health": "/health/",
        "pipeline": factories.address(run.stage.pipeline),
        "stage": factories.address(run.stage),
        "run": factories.address(run),
        "abort": factories.address(run, "abort"),
        "missing": "/nothing/here/",
    }[name]
