"""Configure Django, create the database, and serve."""

import socket
import sys
from pathlib import Path

import django
from django.conf import settings

PACKAGE = "tests.support.oidc_provider"


def serve(folder: Path) -> None:
    # Not 127.0.0.1: another host than the dashboard's, as in production.
    listener = socket.create_server(("127.0.0.1", 0))
    base_url = f"http://localhost:{listener.getsockname()[1]}"
    settings.configure(
        ALLOWED_HOSTS=["localhost"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": folder / "provider.sqlite3",
                "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
            }
        },
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "oauth2_provider",
        ],
        LOGIN_URL="/sign-in/",
        MIDDLEWARE=[
            f"{PACKAGE}.urls.fail",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        OAUTH2_PROVIDER={
            "ALLOWED_REDIRECT_URI_SCHEMES": ["http"],
            "OAUTH2_VALIDATOR_CLASS": f"{PACKAGE}.urls.Validator",
            "OIDC_ENABLED": True,
            "OIDC_ISS_ENDPOINT": f"{base_url}/o",
            "OIDC_RP_INITIATED_LOGOUT_ENABLED": True,
            "SCOPES": dict.fromkeys(("openid", "profile", "email"), "your account"),
        },
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # of the secret
        ROOT_URLCONF=f"{PACKAGE}.urls",
        SECRET_KEY="of-the-provider",
        TEMPLATES=[
            {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}
        ],
        USE_TZ=True,
    )
    django.setup()

    from django.core.handlers.wsgi import WSGIHandler
    from django.core.management import call_command
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

    from tests.support.oidc_provider import urls

    call_command("migrate", verbosity=0)
    urls.use_new_key()

    class Handler(WSGIRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            sys.stderr.write(f"{format % arguments}\n")

    server = ThreadedWSGIServer(listener.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.server_name, server.server_port = "localhost", listener.getsockname()[1]
    server.setup_environ()
    server.set_app(WSGIHandler())
    print(f"OpenID provider running on {base_url}", flush=True)  # noqa: T201
    server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
