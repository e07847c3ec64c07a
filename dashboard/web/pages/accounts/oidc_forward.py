"""The page that forwards to the identity provider at once.

The provider is reached by a page, not by the redirect of a form: browsers apply `form-action` to
all redirects after a form, and a provider may use hosts other than the issuer's.
"""

from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def forward(request: HttpRequest, url: str) -> HttpResponse:
    """Render the page; `url` is an address of the provider."""
    host = urlsplit(settings.OIDC_ISSUER).netloc
    return render(request, "pages/accounts/oidc_forward.html", {"url": url, "host": host})
