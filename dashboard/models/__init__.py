"""What we keep: the mirror of Northflank, our aborts, and the sync's bookkeeping."""

from dashboard.models.aborts import Abort, AbortEvent
from dashboard.models.access import Grant
from dashboard.models.batches import AbortBatch, BatchItem
from dashboard.models.catalog import Pipeline, Project, Stage
from dashboard.models.dismissals import Dismissal
from dashboard.models.looking import Looking
from dashboard.models.lookups import RunLookup
from dashboard.models.push import Push, PushEvent
from dashboard.models.runs import ChangeCounter, Run
from dashboard.models.sync import Budget, CatalogueSweep, QuestionCounter, Upstream, Worker
from dashboard.models.timings import StageTiming
from dashboard.models.tokens import ApiToken
from dashboard.models.views import DefaultView, SavedView

__all__ = [
    "Abort",
    "AbortBatch",
    "AbortEvent",
    "ApiToken",
    "BatchItem",
    "Budget",
    "CatalogueSweep",
    "ChangeCounter",
    "DefaultView",
    "Dismissal",
    "Grant",
    "Looking",
    "Pipeline",
    "Project",
    "Push",
    "PushEvent",
    "QuestionCounter",
    "Run",
    "RunLookup",
    "SavedView",
    "Stage",
    "StageTiming",
    "Upstream",
    "Worker",
]
