"""The log of a real process: what strangers make it say."""

from pathlib import Path

import httpx
import pytest

from dashboard.config.logging import MAX_VALUE_LENGTH
from tests.support.processes import run_manage

pytestmark = [pytest.mark.process, pytest.mark.slow]


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


@pytest.mark.parametrize(
    ("method", "path", "header", "lines"),
    [
        ("GET", "/", "Host", 1),
        ("GET", f"/{'x' * 30_000}", "", 20),
        ("POST", "/accounts/login/", "Origin", 20),
    ],
    ids=["host", "path", "origin"],
)
def test_refused_requests_of_30_kb_take_short_lines(
    tmp_path: Path, method: str, path: str, header: str, lines: int
) -> None:
    database = f"sqlite:///{tmp_path / 'd.sqlite3'}"
    with run_manage(tmp_path, "serve", "--port", "0", DATABASE_URL=database) as process:
        before = len(process.log.read_text().splitlines())
        headers = {header: "x" * 30_000} if header else {}
        for _ in range(20):
            with httpx.Client() as client:
                answer = client.request(method, f"{process.base_url}{path}", headers=headers)
                assert answer.status_code in {400, 403, 404}
        added = process.log.read_text().splitlines()[before:]
    assert len(added) == lines
    assert max(map(len, added)) < 2 * MAX_VALUE_LENGTH
