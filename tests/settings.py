"""The dashboard's settings, without a developer's own `.env`, except DATABASE_URL."""

import os
import tempfile
from pathlib import Path

_example = Path(__file__).resolve().parent.parent / ".env.example"
NAMES = [line.partition("=")[0] for line in _example.read_text().splitlines() if line[:1].isupper()]
for _name in NAMES:
    if _name != "DATABASE_URL":
        os.environ[_name] = ""
_scratch = Path(tempfile.mkdtemp(prefix="dashboard-tests-"))
os.environ["SECRET_KEY"] = "tests-only-" + "x" * 50
os.environ["LOG_LEVEL"] = "WARNING"
if not os.environ.get("DATABASE_URL"):
    os.environ["DATABASE_URL"] = f"sqlite:///{_scratch / 'unused.sqlite3'}"

from dashboard.settings import *  # noqa: E402, F403
from dashboard.settings import DATABASES  # noqa: E402

_database = DATABASES["default"]
# A commit does not wait for the disk: no test asks what outlives a machine that stops.
if _database["ENGINE"].endswith(".sqlite3"):
    # A file, not memory: several threads use it, as in the product.
    _database["TEST"] = {"NAME": str(_scratch / "test.sqlite3")}
    _database["OPTIONS"]["init_command"] += "PRAGMA synchronous=OFF;"
else:
    _database["OPTIONS"].setdefault("options", "-c synchronous_commit=off")
# Finds files on request, not at the start of each of thousands of clients.
WHITENOISE_AUTOREFRESH = True
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast; nothing is secret
