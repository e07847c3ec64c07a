"""The signing key of an installation without SECRET_KEY: created once, in a private file."""

import contextlib
import os
import tempfile
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key


def load_or_create(path: Path) -> str:
    """Return the key stored in `path`; create the file, readable by its owner only, if missing.

    Raise ImproperlyConfigured if the file is empty, or can be neither read nor written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            # A link appears complete: of processes starting together one wins, all read its key.
            with tempfile.NamedTemporaryFile("w", dir=path.parent) as file:
                file.write(get_random_secret_key())
                file.flush()
                with contextlib.suppress(FileExistsError):
                    os.link(file.name, path)
        key = path.read_text().strip()
    except OSError as error:
        raise ImproperlyConfigured(
            f"SECRET_KEY is not set and no key can be saved in {path}: {error.strerror}"
        ) from error
    if not key:
        raise ImproperlyConfigured(f"SECRET_KEY is not set and {path} is empty. Delete that file.")
    return key
