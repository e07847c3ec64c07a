"""Rules of notices: administrators add, change, delete and test them."""

from django.conf import settings
from django.utils.translation import gettext_lazy

from dashboard.accounts import rights_changes
from dashboard.accounts.administration import administrators
from dashboard.accounts.administration.administrators import Author, recorded_change
from dashboard.db.threads import now
from dashboard.models import NoticeMessage, NoticeRule
from dashboard.notices import texts
from dashboard.texts.rich_text import MessageTable

_text = MessageTable(
    {"not_set": gettext_lazy("Nothing was sent: channel “%(channel)s” is not in NOTIFY_URLS.")}
)


def add(author: Author, rule: NoticeRule) -> None:
    """Store a new rule; raise NotAllowed."""
    with recorded_change(author, "Added.") as before:
        rule.created_at = now()
        rule.save()
        before[rights_changes.notice_rule(rule.pk)] = None


def change(author: Author, rule: NoticeRule, version: str) -> None:
    """Store a changed rule; raise NotAllowed.

    Conflict if it was deleted, or is not as `version` (`rights_changes.version`) any more.
    """
    subject = rights_changes.notice_rule(rule.pk)
    with recorded_change(author, "Changed.", subject, version=version):
        rule.save()


def delete(author: Author, rule: NoticeRule, version: str) -> None:
    """Delete a rule; raise as `change`."""
    subject = rights_changes.notice_rule(rule.pk)
    with recorded_change(author, "Deleted.", subject, version=version):
        NoticeRule.objects.filter(pk=rule.pk).delete()


def store_test(author: Author, rule: NoticeRule) -> NoticeMessage:
    """Store a test of a rule's channel, which the leader sends; raise AdministrationError."""
    administrators.require(administrators.change_permission())
    if rule.channel not in settings.NOTIFY_URLS:
        raise administrators.AdministrationError(_text("not_set", channel=rule.channel))
    message = texts.of_test(rule.channel, author.user.get_username())
    message.save()
    return message
