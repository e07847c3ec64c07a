"""Template tags of the dashboard."""

from datetime import datetime

from django import template
from django.conf import settings
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import json_script
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from dashboard.accounts import access_log
from dashboard.accounts.administration import administrators
from dashboard.sync.reports.sync_state import SyncHealth
from dashboard.texts import durations
from dashboard.web.components import elements, headings, help_links, macros
from dashboard.web.components.tab_title import Icon
from dashboard.web.http import database_outage, links

register = template.Library()


register.filter("attribute", elements.attribute, is_safe=True)
register.filter("heading", headings.cut)
register.filter("run_title", headings.run_title)
register.filter("run_url", links.run_url)
register.simple_tag(elements.age)
register.simple_tag(elements.clock)
register.simple_tag(elements.dated_clock)
register.simple_tag(elements.full_time)
register.simple_tag(elements.icon)
register.simple_tag(elements.rich_text)
register.simple_tag(elements.since)
register.simple_tag(elements.time_ago)
register.simple_tag(elements.until)
register.simple_tag(help_links.section_link, name="help")
register.simple_tag(macros.render, name="render_macro")


@register.simple_tag
def outage_message(down_since: datetime) -> SafeString:
    """Render the start and the cause of a database outage as a sentence."""
    time = elements.clock(down_since)
    return elements.rich_text(database_outage.outage_sentence(time))


@register.simple_tag
def deployment_zone() -> str:
    """Return the name of the deployment's time zone."""
    return settings.TIME_ZONE  # the current zone's name may be an offset such as "-03"


@register.simple_tag
def time_texts() -> SafeString:
    """Render, as JSON, the texts with which times.js formats elapsed times and countdowns."""
    texts = durations.unit_formats() | {
        "for": _("for %(time)s"),
        "in": _("in %(time)s"),
        "ago": _("%(time)s ago"),
        "due": _("due now"),
    }
    return json_script(texts, "time-texts")


@register.simple_tag
def icon_url(state: str) -> str:
    """Return the URL of a tab's icon; the OK icon if the page has no state."""
    return static(f"icons/{state or Icon.OK}.svg")


@register.simple_tag
def health_text(health: SyncHealth) -> SafeString:
    """Render the health of the sync as a sentence with its times."""
    since = elements.time_ago(health.since) if health.since else ""
    until = elements.clock(health.until) if health.until else ""
    return elements.rich_text(health.sentence(since, until))


@register.simple_tag
def settings_tabs(request: HttpRequest) -> list[tuple[str, str, bool]]:
    """Return each tab of the pages behind “Settings” that the user may open.

    With its address and label, and whether it is the current one.
    """
    found = [("my_account", _("My account"))]
    if administrators.may_administer(request.user):
        found += [
            ("people", _("Accounts")),
            ("groups", _("Groups and grants")),
            ("who_may", _("Who may do what")),
            ("notices", _("Notices")),
            ("rights_changes", _("Changes")),
        ]
    if access_log.may_view(request.user):
        found.append(("access_log", _("Access log")))
    labels = {reverse(name): label for name, label in found}
    current = max(filter(request.path.startswith, labels), key=len, default="")
    return [(url, label, url == current) for url, label in labels.items()]
