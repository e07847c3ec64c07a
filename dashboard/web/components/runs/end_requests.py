"""Who is told through which channel when a run ends, on the run's page."""

from typing import Any

from django.conf import settings

from dashboard.models import EndRequest, Run
from dashboard.notices import end_requests
from dashboard.web.http import links


def panel(run: Run, user_pk: int | None) -> dict[str, Any] | None:
    """Return what the page shows; None of a run that has ended. It differs between users if asked.

    Without `user_pk` it is the same for all: the page then fetches the user's own form.
    """
    if not run.is_tracked:
        return None
    asked: dict[str, list[EndRequest]] = {name: [] for name in end_requests.open_channels(run)}
    requests = run.end_requests.select_related("user").order_by("pk")
    for request in requests if settings.NOTIFY_URLS else ():
        asked.setdefault(request.channel, []).append(request)
    keys = [str(request.pk) for of_channel in asked.values() for request in of_channel]
    return {
        "url": f"{links.run_url(run)}end-requests/",
        # A new id when the available actions change (run.html).
        "id": "-".join(["end-requests", *asked, *keys]),
        "is_asked": bool(keys),
        "rows": [
            {
                "channel": channel,
                "names": ", ".join(request.user.get_username() for request in of_channel),
                "is_own": any(request.user_id == user_pk for request in of_channel),
            }
            for channel, of_channel in asked.items()
        ],
    }
