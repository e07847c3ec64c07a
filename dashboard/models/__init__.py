"""Database models: the mirror of Northflank, our aborts, and the sync's bookkeeping."""

from dashboard.models.aborts import Abort, AbortEvent
from dashboard.models.accounts.access import AccessEvent
from dashboard.models.accounts.api_tokens import ApiToken
from dashboard.models.accounts.grants import Grant
from dashboard.models.accounts.last_visits import LastVisit
from dashboard.models.accounts.proxy_accounts import ProxyAccount
from dashboard.models.accounts.rights_changes import RightsChange
from dashboard.models.accounts.sessions import Session
from dashboard.models.accounts.stars import Star
from dashboard.models.accounts.throttles import FailureCounter
from dashboard.models.acknowledgements import Acknowledgement
from dashboard.models.bulk_aborts import BulkAbort, BulkAbortItem
from dashboard.models.catalog import Pipeline, Project, Stage
from dashboard.models.counters import MetricCounter
from dashboard.models.day_sums import ProjectDay, StageDay
from dashboard.models.dismissals import Dismissal
from dashboard.models.notices import EndRequest, Notice, NoticeMessage, NoticeRule
from dashboard.models.runs import ChangeCounter, Run
from dashboard.models.saved_views import DefaultView, SavedView
from dashboard.models.search_texts import SearchText
from dashboard.models.stage_timings import StageTiming
from dashboard.models.sync.catalog_lists import CatalogSync
from dashboard.models.sync.lead import Lead
from dashboard.models.sync.pruning import Pruning
from dashboard.models.sync.read_requests import ReadRequest
from dashboard.models.sync.upstream import RateBudget, RequestCounter, Upstream
from dashboard.models.sync.webhooks import WebhookStats
from dashboard.models.works import Work
