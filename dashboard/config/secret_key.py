"""The signing key of an installation that was given none: made once, kept in a private file."""

import contextlib
import os
import tempfile
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key


def load_or_create(path: Path) -> str:
    """Return the key kept in `path`, making it (readable by its owner only) the first time.

    Raises ImproperlyConfigured where it can be neither read nor written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            # Linked into place whole: of processes that start together one wins and all read it.
            with tempfile.NamedTemporaryFile("w", dir=path.parent) as file:
                file.write(get_random_secret_key())
                file.flush()
                with contextlib.suppress(FileExistsError):
                    os.link(file.name, path)
        key = path.read_text().strip()
    except OSError as error:
        raise ImproperlyConfigured(
            f"SECRET_KEY is not set and no key can be kept in {path}: {error.strerror}"
        ) from error
    if not key:
        raise ImproperlyConfigured(f"SECRET_KEY is not set and {path} is empty: delete that file.")
    return key
