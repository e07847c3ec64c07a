"""A picture of the help."""

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe


@require_safe
def guide_picture(request: HttpRequest, picture: str) -> HttpResponse:
    """Return a picture of docs/images/; its name is a slug, thus no path."""
    path = settings.BASE_DIR / "docs" / "images" / f"{picture}.png"
    if not path.is_file():
        raise Http404
    return HttpResponse(path.read_bytes(), content_type="image/png")
