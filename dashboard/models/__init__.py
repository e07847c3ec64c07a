"""What we keep: the mirror of Northflank, our aborts, and the sync's bookkeeping."""

from dashboard.models.aborts import Abort
from dashboard.models.catalog import Pipeline, Project, Stage
from dashboard.models.push import Push, PushEvent
from dashboard.models.runs import ChangeCounter, Run
from dashboard.models.sync import Budget, CatalogueSweep, Upstream, Worker

__all__ = [
    "Abort",
    "Budget",
    "CatalogueSweep",
    "ChangeCounter",
    "Pipeline",
    "Project",
    "Push",
    "PushEvent",
    "Run",
    "Stage",
    "Upstream",
    "Worker",
]
