"""The log of a real process: what strangers make it say."""

from pathlib import Path

import httpx
import pytest

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
