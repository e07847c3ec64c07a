#!/usr/bin/env python
"""Django's command line: `serve`, `sync`, `sandbox`, `createsuperuser`, ..."""

import os
import sys

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

from dashboard import __version__

if __name__ == "__main__":
    os.umask(0o077)  # the SQLite file holds the keys of sessions
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")
    if sys.argv[1:] in (["version"], ["--version"]):  # which would be that of Django
        sys.stdout.write(f"{__version__}\n")
        sys.exit()
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        if settings.configured:
            raise
        sys.stderr.write(f"{error}\n")
        sys.exit(2)  # as for an invalid command line: nothing was done
