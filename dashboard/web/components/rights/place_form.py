"""The form of an action, a stage and a project: for a new grant, and to ask who may do what."""

from typing import Any

from django import forms
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.models import Project
from dashboard.models.accounts.grants import Action
from dashboard.models.catalog import StageName
from dashboard.web.components import elements

_QUESTIONS = [
    (Action.VIEW.value, gettext_lazy("view runs")),
    (Action.LOGS.value, gettext_lazy("see logs")),
    (Action.ABORT.value, gettext_lazy("abort")),
]
STAGES = [("", gettext_lazy("All stages")), *((name, name) for name in StageName.values)]


class ProjectField(forms.ModelChoiceField):  # type: ignore[type-arg]
    """A choice of projects, by their names."""

    def label_from_instance(self, obj: Project) -> str:
        return elements.attribute(Truncator(str(obj)).chars(60))


class PlaceForm(forms.Form):
    """An action in a stage and a project, which may be empty: any.

    `holders`: for a new grant of them, a sentence that begins with this, where empty means all,
    and which is for no removed project.
    """

    action = forms.ChoiceField(
        label=gettext_lazy("Access"),
        choices=[
            (Action.VIEW.value, gettext_lazy("view runs")),
            (Action.LOGS.value, gettext_lazy("view runs and see logs")),
            (Action.ABORT.value, gettext_lazy("view runs, see logs and abort")),
        ],
        error_messages={"invalid_choice": gettext_lazy("Unknown permission “%(value)s” ignored.")},
    )
    stage = forms.ChoiceField(
        label=gettext_lazy("Stage"),
        choices=STAGES,
        required=False,
        error_messages={"invalid_choice": gettext_lazy("Unknown stage “%(value)s” ignored.")},
    )
    project = ProjectField(
        Project.objects.order_by("name", "slug"),
        label=gettext_lazy("Project"),
        to_field_name="slug",
        required=False,
        empty_label=gettext_lazy("All projects"),
        error_messages={
            "invalid_choice": gettext_lazy("Project “%(value)s” not found; showing any project.")
        },
    )

    def __init__(self, data: Any = None, *, initial: Any = None, holders: str = "") -> None:
        super().__init__(data, initial=initial, auto_id="%s", label_suffix="")
        if holders:
            projects = self.fields["project"]
            self.fields["action"].label = holders
            self.fields["stage"].label = _("in")
            projects.label = _("of")
            projects.queryset = projects.queryset.filter(removed_at=None)  # type: ignore[attr-defined]
        else:
            self.fields["action"].choices = _QUESTIONS  # type: ignore[attr-defined]
            self.fields["project"].empty_label = _("Any project")  # type: ignore[attr-defined]
            self.fields["stage"].choices = [("", _("Any stage")), *STAGES[1:]]  # type: ignore[attr-defined]

    def keep_unlisted_project(self) -> None:
        """Show a project that was refused as the one that is chosen, not all projects."""
        slug = self.data.get("project", "")
        if "project" in self.errors:
            field = self.fields["project"]
            field.choices = [*field.choices, (slug, elements.attribute(Truncator(slug).chars(60)))]  # type: ignore[attr-defined]
