"""What we keep: the mirror of Northflank, our aborts, and the sync's bookkeeping."""

from dashboard.models.aborts import Abort, AbortEvent
from dashboard.models.acknowledgements import Looking
from dashboard.models.api_tokens import ApiToken
from dashboard.models.bulk_aborts import AbortBatch, BatchItem
from dashboard.models.catalog import Pipeline, Project, Stage
from dashboard.models.dismissals import Dismissal
from dashboard.models.grants import Grant
from dashboard.models.run_lookups import RunLookup
from dashboard.models.runs import ChangeCounter, Run
from dashboard.models.saved_views import DefaultView, SavedView
from dashboard.models.sync import Budget, CatalogueSweep, QuestionCounter, Upstream, Worker
from dashboard.models.typical_durations import StageTiming
from dashboard.models.webhooks import Push, PushEvent

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
