"""The servers and programs of this machine that the suite uses where they are."""

import os
import shutil

# The headless shell is Chromium without the desktop around it: the same pages for a third of the
# processor's time.
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
# A server on which tests may make databases of their own.
POSTGRES = os.environ.get("TEST_POSTGRES_URL") or "postgres://postgres@127.0.0.1:5432/postgres"
IN_CI = os.environ.get("CI") == "true"
