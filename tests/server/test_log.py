"""The log of a real process: what strangers make it say."""

from collections import Counter
from pathlib import Path

import httpx
import pytest

from dashboard.web.http.webhook import HEADER_PREFIX
from tests.support.processes import run_manage

pytestmark = [pytest.mark.process, pytest.mark.slow]

LONG = "x" * 20_000


def test_requests_of_strangers_are_logged_once_in_short_lines(tmp_path: Path) -> None:
    fields = "&".join(f"a{number}=1" for number in range(1500))
    requests = {
        # By the beginning of the line.
        "Invalid HTTP_HOST header": ("GET", "/x", {"Host": LONG}),
        "Not Found": ("GET", f"/static/{LONG}", {}),
        "Method Not Allowed": ("POST", "/healthz", {}),
        "Forbidden": ("POST", "/accounts/logout/", {"Origin": f"https://{LONG}"}),
        "sign_in.form_refused": ("POST", "/accounts/login/", {"Origin": f"https://{LONG}"}),
        "Unsafe redirect": ("GET", f"/live/?page={LONG}", {}),
        "The number of GET/POST parameters": ("GET", f"/accounts/login/?{fields}", {}),
        "webhook.refused": ("POST", "/hooks/northflank/", {f"{HEADER_PREFIX}Token": LONG}),
        "access.recorded": ("GET", "/api/runs/", {"Authorization": f"Bearer {LONG}"}),
    }
    with run_manage(
        tmp_path,
        "serve",
        "--port",
        "0",
        LOG_LEVEL="INFO",
        DATABASE_URL=f"sqlite:///{tmp_path / 'd.sqlite3'}",
    ) as process:
        with httpx.Client(base_url=process.base_url) as client:
            for method, path, headers in requests.values():
                for _ in range(3):
                    answer = client.request(method, path, headers=headers)
                    assert 400 <= answer.status_code < 500, (path[:50], answer)
        lines = process.log.read_text().splitlines()
    logged = Counter(begin for line in lines for begin in requests if f"] {begin}" in line)
    assert logged == dict.fromkeys(requests, 1)
    assert not [line for line in lines if len(line) > 400 or line.startswith("Traceback")]


def test_key_of_a_session_is_not_logged_at_the_lowest_level(tmp_path: Path) -> None:
    key = "k" * 32
    with run_manage(
        tmp_path,
        "serve",
        "--port",
        "0",
        DEBUG="true",
        LOG_LEVEL="DEBUG",
        DATABASE_URL=f"sqlite:///{tmp_path / 'd.sqlite3'}",
    ) as process:
        answer = httpx.get(f"{process.base_url}/board/", cookies={"sessionid": key})
        assert answer.status_code == 302
        assert key not in process.log.read_text()
