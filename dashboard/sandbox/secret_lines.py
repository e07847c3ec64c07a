"""The secrets that the sandbox plants, in one place, and the lines of logs that hold them.

None is real. Those outside of logs, in arguments, environments, triggers, refs and webhooks, all
begin with SECRET_PREFIX.
"""

SECRET_PREFIX = "s3cr3t-"

LOGGED_SECRETS = {
    f"{SECRET_PREFIX}url-pw": "connecting to postgres://app:{}@db.internal:5432/orders",
    f"{SECRET_PREFIX}bearer": "> Authorization: Bearer {}",
    f"{SECRET_PREFIX}pair": "PGPASSWORD={}",
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7sandboxKeyBody": (
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----"
    ),
    "AKIAIOSFODNN7EXAMPLE": "using credentials {} of the instance",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzYW5kYm94In0.c2FuZGJveC1zaWduYXR1cmU": "session {} opened",
}
"""Secrets with their lines: these and SECRET_PREFIX are all that tests have to search for."""


def list_secret_lines(pipeline: str, job: str) -> list[str]:
    """Return lines with every kind of secret, first an argument's and an environment's."""
    known = f"{SECRET_PREFIX}argument-{pipeline}", f"{SECRET_PREFIX}environment-{job}"
    lines = [f"logged in with {secret} as app" for secret in known]
    lines += [line.format(secret) for secret, line in LOGGED_SECRETS.items()]
    return "\n".join(lines).splitlines()
