"""For machines: is the process alive, and can it serve?"""

from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe


@login_not_required
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Answer 200 while the process answers at all."""
    return HttpResponse("ok\n", content_type="text/plain")


@login_not_required
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 once the database answers, else 503. Northflank's health does not matter here."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM dashboard_upstream")
    except DatabaseError as error:
        return HttpResponse(
            f"database: {type(error).__name__}\n", status=503, content_type="text/plain"
        )
    return HttpResponse("ready\n", content_type="text/plain")
