"""The `.env` file: what cannot be read of it stops the start, instead of being ignored.

Without its settings the dashboard would show the sandbox where people expect production.
"""

import os
import re
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

_SETTING = re.compile(r"(?:export )?[A-Za-z_0-9]+=.*")
_COMMENT = re.compile(r"\s*(?:#.*)?")


def read_env_file(path: Path) -> str:
    """Return the lines of a file that set variables; "" if there is no such file.

    Raise ImproperlyConfigured if the file cannot be read, or if a line is neither NAME=value nor a
    comment. The line is named by its number, since it may contain a secret.
    """
    if not os.path.lexists(path):  # a link that leads nowhere is an error
        return ""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ImproperlyConfigured(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise ImproperlyConfigured(f"{path} cannot be read: it is not UTF-8.") from None
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        if _SETTING.fullmatch(line):
            lines.append(line)
        elif not _COMMENT.fullmatch(line):
            raise ImproperlyConfigured(
                f"Line {number} of {path} is not NAME=value. "
                'Write it without spaces before it and around "=".'
            )
    return "\n".join(lines)
