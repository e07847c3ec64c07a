"""The servers and programs of this machine that the suite uses where they are."""

import os
import shutil

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
# A server on which tests may make databases of their own.
POSTGRES = os.environ.get("TEST_POSTGRES_URL") or "postgres://postgres@127.0.0.1:5432/postgres"
IN_CI = os.environ.get("CI") == "true"
