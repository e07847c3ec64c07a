"""Who signs an account in, other than its password: the proxy, or the OpenID provider."""

from enum import StrEnum

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import User

from dashboard.models import ProxyAccount


class IdentitySource(StrEnum):
    """What signs an account in with the present settings."""

    PROXY = "proxy"
    OIDC = "oidc"

    @property
    def decides_groups(self) -> bool:
        """Whether the account's groups follow the source at each sign-in."""
        is_proxy = self == IdentitySource.PROXY
        return bool(settings.AUTH_PROXY_GROUPS_HEADER if is_proxy else settings.OIDC_GROUPS_CLAIM)


def find(account: User) -> IdentitySource | None:
    """Return what signs an account in; None: at most its password."""
    if settings.AUTH_PROXY_HEADER and ProxyAccount.objects.filter(user=account).exists():
        return IdentitySource.PROXY
    if settings.OIDC_ISSUER:
        # Not imported: the application is installed only with a provider.
        model = apps.get_app_config("socialaccount").get_model("SocialAccount")
        accounts = model._default_manager.filter(provider=settings.OIDC_ISSUER)
        if accounts.filter(user=account).exists():
            return IdentitySource.OIDC
    return None
