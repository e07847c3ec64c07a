"""Cost of an abort, from its form to the row in the response, in one process, for bench/compare.py.

The application, its threads and the client of Northflank's API do all that they do in production;
Northflank's response takes no time and no connection.
"""

import asyncio
import json
import time
from typing import Any
from urllib.parse import urlencode


class AbortMeasurement:
    """Aborts new runs of one stage of a filled database (bench/people.py)."""

    def __init__(self, application: Any, stage_key: int) -> None:
        import httpx

        from dashboard.northflank import NorthflankClient
        from dashboard.upstream import connection

        self.application, self.stage_key, self.run_count = application, stage_key, 0
        self.loop = asyncio.new_event_loop()
        upstream = connection.open_connection("http://127.0.0.1:9", "bench")
        upstream.client = NorthflankClient(
            "bench",
            base_url="http://127.0.0.1:9",
            on_call=upstream.unrecorded_calls.append,
            transport=httpx.MockTransport(_accept_abort),
        )

    def measure(self, scope: dict[str, Any], csrf_token: str) -> tuple[float, float]:
        """Abort a new run; return the milliseconds of CPU of all threads, and the duration in ms.

        `scope` is the ASGI scope of a GET of the stage's page.
        """
        run_id = self._start_run()
        form = urlencode({"csrfmiddlewaretoken": csrf_token, "reason": "bench"}).encode()
        scope = {**scope, "path": f"{scope['path']}runs/{run_id}/abort/"}
        scope["headers"] = [*scope["headers"], (b"hx-request", b"true")]
        self.loop.run_until_complete(self._request(scope, b""))  # the confirmation
        scope["method"] = "POST"
        scope["headers"] += [
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"content-length", str(len(form)).encode()),
        ]
        started = time.process_time(), time.perf_counter()
        body = self.loop.run_until_complete(self._request(scope, form))
        durations = time.process_time() - started[0], time.perf_counter() - started[1]
        assert b"Abort accepted" in body, body[:2_000]
        # Work that outlasts the response must not count in the next measurement.
        self.loop.run_until_complete(self._wait_for_tasks())
        return durations[0] * 1000, durations[1] * 1000

    async def _request(self, scope: dict[str, Any], form: bytes) -> bytes:
        """Return the body of the response."""
        body: list[bytes] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": form}

        async def send(message: Any) -> None:
            body.append(message.get("body", b""))

        await self.application(scope, receive, send)
        return b"".join(body)

    async def _wait_for_tasks(self) -> None:
        from dashboard.upstream.connection import get_connection

        await get_connection().flush()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    def _start_run(self) -> str:
        from django.db import transaction
        from django.utils import timezone

        from dashboard.models import ChangeCounter, Run

        self.run_count += 1
        now = timezone.now()
        with transaction.atomic():
            version = ChangeCounter.take(1)
            Run.objects.create(
                stage_id=self.stage_key, run_id=f"abort-{self.run_count}", name="Release",
                status="running", concluded=False, in_flight=True, created_at=now, started_at=now,
                first_synced_at=now, synced_at=now, status_since=now, version=version,
            )  # fmt: skip
        return f"abort-{self.run_count}"


def _accept_abort(request: Any) -> Any:
    import httpx

    run = {"id": request.url.path.split("/")[-2], "status": "aborting", "concluded": False}
    rate_limit = {"limit": "1000", "remaining": "900", "reset": "3000"}
    headers = {f"x-ratelimit-{name}": value for name, value in rate_limit.items()}
    return httpx.Response(200, headers=headers, content=json.dumps({"data": run}).encode())
