"""Secrets from files, as Docker, Kubernetes and systemd hand them over: NAME_FILE for NAME."""

from pathlib import Path

from django.core.exceptions import ImproperlyConfigured


def read_secret(name: str, value: str, file: str) -> str:
    """Return a secret: `value`, or the contents of `file` without line breaks at the end.

    Raise ImproperlyConfigured if both are given, or if the file is empty or cannot be read:
    without its token the dashboard would show the sandbox where people expect production.
    """
    if not file:
        return value
    if value:
        raise ImproperlyConfigured(f"{name} and {name}_FILE are both set. Unset one of them.")
    try:
        secret = Path(file).read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except ValueError:  # not UTF-8, or a NUL in the path
        reason = "cannot be read as text in UTF-8"
    else:
        if secret.strip():
            return secret
        reason = "is empty"
    raise ImproperlyConfigured(f"The file that {name}_FILE names, {file}, {reason}.")
