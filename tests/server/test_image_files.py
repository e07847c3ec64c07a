"""The files of the image: .dockerignore leaves out nothing that a page needs."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.live import token
from tests.support.live_runs import wait_until
from tests.support.ports import free_port
from tests.support.processes import environment

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = importlib.util.spec_from_file_location("try_image", ROOT / "deploy" / "try_image.py")

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_pages_of_a_tree_with_the_files_of_the_image(tmp_path: Path) -> None:
    assert SCRIPT is not None
    assert SCRIPT.loader is not None
    try_image = importlib.util.module_from_spec(SCRIPT)
    SCRIPT.loader.exec_module(try_image)
    for path in try_image.context():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, target)
    (tmp_path / "var").mkdir()
    port = str(free_port())
    command = [sys.executable, "manage.py", "serve", "--port", port]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment())
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

            def is_ready() -> bool:
                try:
                    return client.get("/accounts/login/").status_code == 200
                except httpx.ConnectError:
                    return False

            wait_until(is_ready)
            form = {
                "username": "viewer",
                "password": "viewer",
                "csrfmiddlewaretoken": token(client),
            }
            assert client.post("/accounts/login/", data=form).status_code == 302
            statuses = {path: client.get(path).status_code for path in try_image.PAGES}
    finally:
        process.terminate()
        process.wait(30)
    assert statuses == dict.fromkeys(try_image.PAGES, 200)
