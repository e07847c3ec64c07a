"""Changes of rights: who changed which account or group, and its state before and after."""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy


class SubjectKind(models.TextChoices):
    """Whose rights changed."""

    ACCOUNT = "account", gettext_lazy("Account")
    GROUP = "group", gettext_lazy("Group")
    EVERYBODY = "everybody", gettext_lazy("All signed-in users")
    NOTICE = "notice", gettext_lazy("Notice rule")


class RightsChange(models.Model):
    """A change of an account, or of a group or its grants; append-only (models/append_only.py).

    It outlives its subject, so it has no foreign key. It contains no password.
    """

    occurred_at = models.DateTimeField()
    # User name; empty: no account, as for an identity provider.
    changed_by = models.TextField(blank=True)
    client_address = models.GenericIPAddressField(null=True)
    subject_kind = models.CharField(max_length=10, choices=SubjectKind)
    subject_key = models.BigIntegerField()  # Primary key; 0 for everybody.
    # Name after the change, or before a deletion; empty for everybody.
    subject = models.TextField(blank=True)
    detail = models.TextField(blank=True)  # What was done, as a sentence.
    before = models.JSONField(null=True)  # State in plain names; null: did not exist.
    after = models.JSONField(null=True)  # The same; null: deleted.

    class Meta:
        ordering: ClassVar = ["-pk"]
        indexes: ClassVar = [
            models.Index(fields=["subject_kind", "subject_key", "id"], name="rights_change_key"),
            models.Index(fields=["subject", "id"], name="rights_change_name"),
        ]
