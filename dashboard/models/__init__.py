"""Database models: the mirror of Northflank, our aborts, and the sync's bookkeeping."""

from dashboard.models.aborts import Abort, AbortEvent
from dashboard.models.accounts.access import AccessEvent
from dashboard.models.accounts.api_tokens import ApiToken
from dashboard.models.accounts.grants import Grant
from dashboard.models.accounts.proxy_accounts import ProxyAccount
from dashboard.models.accounts.rights_changes import RightsChange
from dashboard.models.accounts.sessions import Session
from dashboard.models.accounts.throttles import FailureCounter
from dashboard.models.acknowledgements import Acknowledgement
from dashboard.models.bulk_aborts import BulkAbort, BulkAbortItem
from dashboard.models.catalog import Pipeline, Project, Stage
from dashboard.models.dismissals import Dismissal
from dashboard.models.pruning import Pruning
from dashboard.models.run_lookups import RunLookup
from dashboard.models.runs import ChangeCounter, Run
from dashboard.models.saved_views import DefaultView, SavedView
from dashboard.models.sync import CatalogSync, RateBudget, RequestCounter, Upstream, Worker
from dashboard.models.typical_durations import StageTiming
from dashboard.models.webhooks import WebhookEvent, WebhookStats

__all__ = [
    "Abort",
    "AbortEvent",
    "AccessEvent",
    "Acknowledgement",
    "ApiToken",
    "BulkAbort",
    "BulkAbortItem",
    "CatalogSync",
    "ChangeCounter",
    "DefaultView",
    "Dismissal",
    "FailureCounter",
    "Grant",
    "Pipeline",
    "Project",
    "ProxyAccount",
    "Pruning",
    "RateBudget",
    "RequestCounter",
    "RightsChange",
    "Run",
    "RunLookup",
    "SavedView",
    "Session",
    "Stage",
    "StageTiming",
    "Upstream",
    "WebhookEvent",
    "WebhookStats",
    "Worker",
]
