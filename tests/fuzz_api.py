"""Try the API as its OpenAPI document describes it, by Schemathesis: `make api`.

Serves the sandbox with the database of DATABASE_URL, which has to be empty or of a sandbox;
PostgreSQL after `manage.py migrate`.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from threading import Thread

import django
import httpx

BASE_URL = "http://127.0.0.1:8190"
# A valid request may still be refused, for what the database has: an unknown place, no reason.
CHECKS = "positive_data_acceptance"


def main() -> int:
    """Return the exit code of Schemathesis."""
    serve = [sys.executable, "manage.py", "serve", "--port", "8190", "--scenario", "everyday"]
    with subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as server:
        try:
            wait_for_runs()
            token = create_token()
            Thread(target=lift_limits, daemon=True).start()
            return subprocess.call(
                [
                    *("uvx", "--from", "schemathesis==4.32.5", "schemathesis", "run"),
                    *(f"{BASE_URL}/api/openapi.json", "-H", f"Authorization: Bearer {token}"),
                    *("--exclude-checks", CHECKS, "--suppress-health-check", "all"),
                    *sys.argv[1:],
                ]
            )
        finally:
            server.terminate()


def wait_for_runs() -> None:
    """Return once the sandbox has been read."""
    from django.db import OperationalError

    from dashboard.models import Run

    for _ in range(120):
        with suppress(httpx.TransportError, OperationalError):
            httpx.get(f"{BASE_URL}/api/runs/")
            if Run.objects.in_flight().exists():
                return
        time.sleep(0.5)
    raise SystemExit("No runs within a minute.")


def create_token() -> str:
    """Return the secret of a token that may abort."""
    from django.contrib.auth.models import User
    from django.utils import timezone

    from dashboard.models import ApiToken
    from dashboard.models.accounts.api_tokens import Scope

    user = User.objects.get(username="manager")
    return ApiToken.create_token(user, "Schemathesis", Scope.ABORT, timezone.now())[1]


def lift_limits() -> None:
    """Keep the token from its limit, and refused ones from being throttled."""
    from django.db import OperationalError

    from dashboard.models import ApiToken, FailureCounter

    while True:
        with suppress(OperationalError):  # SQLite is locked
            ApiToken.objects.update(window_requests=0)
            FailureCounter.objects.all().delete()
        time.sleep(0.2)


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "dashboard.settings"
    django.setup()
    sys.exit(main())
