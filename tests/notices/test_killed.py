"""Processes killed at every boundary of a delivery: nothing is lost, nor sent more than twice."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.databases import query_database
from tests.support.notice_crashes import BOUNDARIES
from tests.support.notices import SECRET, Receiver

pytestmark = [pytest.mark.slow, pytest.mark.process]
KILLS = 50


def test_nothing_is_lost_or_sent_three_times(tmp_path: Path, receiver: Receiver) -> None:
    database = f"sqlite:///{tmp_path / 'd.sqlite3'}"
    variables = os.environ | {
        "DATABASE_URL": database,
        "NOTIFY_URLS": f"siem=webhook+http://{SECRET}@{receiver.address}/",
        "DJANGO_SETTINGS_MODULE": "dashboard.settings",
    }
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], env=variables, check=True)

    def run(boundary: str, number: int) -> int:
        command = [sys.executable, "-m", "tests.support.notice_crashes"]
        env = variables | {"BOUNDARY": boundary, "NUMBER": str(number)}
        return subprocess.run(command, env=env, check=False).returncode

    for number in range(KILLS):
        boundary = BOUNDARIES[number % len(BOUNDARIES)]
        receiver.answers = ["hang" if boundary == "during send" else "200"]
        assert run(boundary, number) == -signal.SIGKILL
    receiver.answers = ["200"]
    assert run("", 0) == 0

    received = Counter(json.loads(body)["number"] for _, _, body in receiver.requests)
    assert set(received) == set(range(KILLS))
    assert max(received.values()) == 2
    sql = "SELECT count(*) FROM dashboard_noticemessage WHERE sent_at IS NULL"
    assert query_database(database, sql) == [(0,)]
    ids = {headers["webhook-id"] for _, headers, _ in receiver.requests}
    assert len(ids) == KILLS  # by which a receiver knows what it already has
