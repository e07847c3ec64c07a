"""Who signs an account in, other than its password: the proxy, or the OpenID provider."""

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import User

from dashboard.models import ProxyAccount

PROXY, OIDC = "proxy", "oidc"


def find(account: User) -> tuple[str, bool]:
    """Return what signs an account in, and whether its groups follow that at each sign-in.

    An empty text: at most its password.
    """
    if settings.AUTH_PROXY_HEADER and ProxyAccount.objects.filter(user=account).exists():
        return PROXY, bool(settings.AUTH_PROXY_GROUPS_HEADER)
    if settings.OIDC_ISSUER:
        # Not imported: the application is installed only with a provider.
        model = apps.get_app_config("socialaccount").get_model("SocialAccount")
        accounts = model._default_manager.filter(provider=settings.OIDC_ISSUER)
        if accounts.filter(user=account).exists():
            return OIDC, bool(settings.OIDC_GROUPS_CLAIM)
    return "", False
