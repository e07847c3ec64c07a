"""The filter “My pipelines” of Now and of the board: only what the user has starred.

In an address it is `mine=1`. A page's own query, from which the stream makes it for everybody with
the same permissions, has the pipelines, too: a stream knows no user.
"""

from django.http import HttpRequest, QueryDict

from dashboard.accounts import stars
from dashboard.web.http import keys
from dashboard.web.http.authentication import sign_in


def of_request(request: HttpRequest) -> frozenset[int] | None:
    """Return the keys of the user's pipelines; None: the request is for all pipelines."""
    if request.GET.get("mine") != "1":
        return None
    return stars.starred_pipelines(sign_in.signed_in_user(request))


def of_query(query: QueryDict) -> frozenset[int] | None:
    """Return the keys of the pipelines in a page's own query; None: it is for all pipelines."""
    if query.get("mine") != "1":
        return None
    return frozenset(keys.parse_pks(query.get("pipelines", "").split("-")))


def parameters(pipelines: frozenset[int] | None) -> dict[str, str]:
    """Return the parameters of a page's own query."""
    if pipelines is None:
        return {}
    return {"mine": "1", "pipelines": "-".join(map(str, sorted(pipelines)))}
