"""Links from pages to the section of the help that explains a notion."""

from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

# What pages link to, by its name in their templates: guide, anchor of its section, and subject.
SECTIONS = {
    "overdue": ("overdue", "when-a-run-is-overdue", gettext_lazy("overdue runs")),
    "acknowledge": ("guide", "acknowledge", gettext_lazy("acknowledge")),
    "abort": ("guide", "abort-a-run", gettext_lazy("abort a run")),
    "abort_messages": ("guide", "messages-of-an-abort", gettext_lazy("messages of an abort")),
    "requests": ("guide", "api-requests", gettext_lazy("API requests")),
    "notices": ("guide", "who-is-told", gettext_lazy("notices")),
    "permissions": ("guide", "permissions", gettext_lazy("permissions")),
    "api": ("api", "tokens", gettext_lazy("API")),
}


def section_link(name: str) -> SafeString:
    """Render a link to one of SECTIONS, in a new tab: a half-written reason stays as it is."""
    guide, anchor, subject = SECTIONS[name]
    label = _("Help: %(subject)s (new tab)") % {"subject": subject}
    address = reverse("guide", args=[guide])
    link = '<a class="help" href="{}#{}" target="_blank" aria-label="{}" title="{}">?</a>'
    return format_html(link, address, anchor, label, label)
