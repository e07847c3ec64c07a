"""The servers and programs that the suite uses if this machine has them."""

import os
import shutil

# The headless shell is Chromium without its desktop part: the same pages for a third of the CPU
# time.
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
# A server on which tests may create databases.
POSTGRES = os.environ.get("TEST_POSTGRES_URL") or "postgres://postgres@127.0.0.1:5432/postgres"
IN_CI = os.environ.get("CI") == "true"
