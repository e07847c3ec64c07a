"""SQLite's file is locked, its disk full, or it is read-only; then not any more."""

import contextlib
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.conf import settings
from pytest_django import DjangoDbBlocker

from dashboard.db.health import OutageCause
from tests.support import processes
from tests.support.outage_site import OutageSite, endure, outage_site
from tests.support.processes import RunningProcess, manage

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("sqlite outages")]

LAST_KNOWN = "Showing last known data. Aborts and other changes may fail."
NO_CHANGES = "The database has accepted no changes since TIME."
DISK_BYTES = 32_000_000


@dataclass
class SqliteSite(OutageSite):
    """A process, and the folder of its database: a disk of its own if this machine allows it."""

    disk: Path
    has_disk: bool

    @property
    def file(self) -> Path:
        return self.disk / "d.sqlite3"


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small file system at `folder`; yield whether this machine allows it."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    is_mounted = not subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> Iterator[SqliteSite]:
    logs, folder = tmp_path_factory.mktemp("logs"), tmp_path_factory.mktemp("disk")
    url = f"sqlite:///{folder / 'd.sqlite3'}"
    with (
        django_db_blocker.unblock(),
        small_disk(folder) as has_disk,
        outage_site(logs, url) as outage,
    ):
        yield SqliteSite(**vars(outage), disk=folder, has_disk=has_disk)


@contextlib.contextmanager
def locked(site: SqliteSite) -> Iterator[None]:
    """Lock the file from another process than the one that serves."""
    with contextlib.closing(sqlite3.connect(site.file, timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


@contextlib.contextmanager
def disk_full(site: SqliteSite) -> Iterator[None]:
    """Fill the disk; without one of its own, let no file of the process grow, as by a quota."""
    if not site.has_disk:
        with file_size_limited(site.processes[0]):
            yield
        return
    ballast = site.disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 1024)
    try:
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def file_size_limited(process: RunningProcess) -> Iterator[None]:
    """Let no file of the process grow beyond what its log is about to need."""
    pid = process.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    size = process.log.stat().st_size + 100_000
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@pytest.mark.slow
def test_locked_file_is_waited_for(site: SqliteSite) -> None:
    answers = endure(site, locked(site), OutageCause.NO_CHANGES)
    assert answers.texts == {f"{NO_CHANGES} {LAST_KNOWN}"}


@pytest.mark.slow
def test_full_disk_is_waited_for(site: SqliteSite) -> None:
    answers = endure(site, disk_full(site), OutageCause.NO_CHANGES)
    assert f"{NO_CHANGES} {LAST_KNOWN}" in answers.texts


@pytest.mark.exhaustive
def test_start_with_read_only_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "d.sqlite3"
    variables = {"DATABASE_URL": f"sqlite:///{file}", "NORTHFLANK_API_TOKEN": "sandbox"}
    assert manage("migrate", "-v0", **variables).returncode == 0
    file.chmod(0o444)
    # An administrator may write any file, but not without this capability.
    prefix = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override"]
    result = subprocess.run(
        [*prefix, sys.executable, "manage.py", "serve", "--port", "0"],
        env=processes.environment(**variables),
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=processes.WAIT_TIMEOUT,
        check=False,
    )
    assert result.returncode == 1
    assert "CommandError: Database error: attempt to write a readonly database" in result.stderr
    assert "Traceback" not in result.stderr
