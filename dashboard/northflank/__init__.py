"""Northflank's API for the rest of the dashboard. Knows HTTP, and knows no Django.

Import from here. Reference: https://northflank.com/docs/v1/api
"""

from dashboard.northflank.client import BASE_URL, Call, NorthflankClient
from dashboard.northflank.errors import (
    NorthflankError,
    NotFound,
    RateLimited,
    Refused,
    Rejected,
    ServerError,
    UnexpectedAnswer,
    Unreachable,
)
from dashboard.northflank.models import (
    OMITTED,
    Auth,
    Node,
    Page,
    Pipeline,
    PipelineDetail,
    Project,
    ReleaseFlow,
    Run,
    RunDetail,
    Team,
)
from dashboard.northflank.paging import drain, find_release_flow
from dashboard.northflank.ratelimit import RateLimit
from dashboard.northflank.redaction import redact

__all__ = [
    "BASE_URL",
    "OMITTED",
    "Auth",
    "Call",
    "Node",
    "NorthflankClient",
    "NorthflankError",
    "NotFound",
    "Page",
    "Pipeline",
    "PipelineDetail",
    "Project",
    "RateLimit",
    "RateLimited",
    "Refused",
    "Rejected",
    "ReleaseFlow",
    "Run",
    "RunDetail",
    "ServerError",
    "Team",
    "UnexpectedAnswer",
    "Unreachable",
    "drain",
    "find_release_flow",
    "redact",
]
