"""A client of Northflank's API, without Django. Import from here.

`client` has a method for each endpoint and `http` sends its request. `responses` turns the response
into JSON or one of the `errors`, `decoding` turns that into `models`, by `values`, and
`secrets_in_texts` removes secrets from what is kept. `log_lines` makes logs fit to be shown,
without the `secret_values` of their run.

Reference: https://northflank.com/docs/v1/api
"""

from dashboard.northflank.client import (
    NorthflankClient,
    fetch_all_pages,
)
from dashboard.northflank.errors import (
    AccessDenied,
    NorthflankError,
    NotFound,
    RateLimited,
    RequestRejected,
    ServerError,
    UnexpectedResponse,
    Unreachable,
)
from dashboard.northflank.http import Call, find_environment_error
from dashboard.northflank.log_lines import ShownLine, show_lines
from dashboard.northflank.models import (
    BUILD,
    JOB_RUN,
    Auth,
    LogLine,
    Node,
    Page,
    Pipeline,
    Project,
    ReleaseFlow,
    Run,
    RunDetail,
    Work,
    WorkRef,
)
from dashboard.northflank.responses import RateLimit
from dashboard.northflank.secret_values import SecretValues, secret_values
