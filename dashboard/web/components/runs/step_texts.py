"""Texts about one step of a run: its name, what kind it is, what it waits for, how it failed."""

from datetime import timedelta

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext, pgettext_lazy

from dashboard.northflank import Node
from dashboard.northflank.models import OMITTED
from dashboard.runs import steps
from dashboard.texts import durations

_KIND_LABELS: dict[str, Promise] = {
    "Workflow": pgettext_lazy("kind of step", "group"),
    "LoopWorkflow": pgettext_lazy("kind of step", "loop"),
    "Build": pgettext_lazy("kind of step", "build"),
    "JobRun": pgettext_lazy("kind of step", "job"),
    "Release": pgettext_lazy("kind of step", "deployment"),
    "AddonBackup": pgettext_lazy("kind of step", "backup"),
    "AddonImport": pgettext_lazy("kind of step", "import"),
    "Approval": pgettext_lazy("kind of step", "approval"),
    "RunTemplate": pgettext_lazy("kind of step", "nested run"),
    "Condition": pgettext_lazy("kind of step", "condition"),
    "Action": pgettext_lazy("kind of step", "action"),
    "Message": pgettext_lazy("kind of step", "message"),
    "SecretInheritance": pgettext_lazy("kind of step", "secrets"),
    "RolloutStrategy": pgettext_lazy("kind of step", "rollout strategy"),
}
# What a step waits for, by kind: waiting for "a build"; waits until "a build" succeeds.
_SUBJECTS: dict[str, Promise] = {
    "Build": pgettext_lazy("subject", "a build"),
    "JobRun": pgettext_lazy("subject", "a job"),
    "Job": pgettext_lazy("subject", "a job"),
    "Release": pgettext_lazy("subject", "a deployment"),
    "AddonBackup": pgettext_lazy("subject", "a backup"),
    "AddonImport": pgettext_lazy("subject", "an import"),
    "RunTemplate": pgettext_lazy("subject", "another run"),
    "Approval": pgettext_lazy("subject", "people"),
    "Service": pgettext_lazy("subject", "a service"),
    "Addon": pgettext_lazy("subject", "an addon"),
    "BYOCCluster": pgettext_lazy("subject", "a cluster"),
    "VCS": pgettext_lazy("subject", "a repository"),
}
_WAITABLE_KINDS = {"Build", "JobRun", "Release", "AddonBackup", "AddonImport", "RunTemplate"}
_CONDITION_TEXTS: dict[str, Promise] = {
    "success": gettext_lazy("waits until %(subject)s succeeds"),
    "running": gettext_lazy("waits until %(subject)s runs"),
}


def name(node: Node) -> str:
    """Return the name of a step; of a group without one, what it groups."""
    if node.kind not in steps.CONTAINER_KINDS or node.label != node.kind:
        return node.label
    if node.kind == "LoopWorkflow":
        return _("Loop")
    return _("Parallel steps") if node.parallel else _("Steps")


def description(node: Node) -> str:
    """Return what kind of step it is, and what the run waits for before it continues."""
    if node.kind == OMITTED:
        return ""
    parts = []
    step_count = len(node.steps)
    if node.kind in steps.CONTAINER_KINDS or step_count:
        if node.kind != "Workflow":
            parts.append(str(_KIND_LABELS.get(node.kind, node.kind)))
        if node.iterations is not None:
            rounds_text = ngettext("%(n)d round", "%(n)d rounds", node.iterations)
            parts.append(rounds_text % {"n": node.iterations})
        steps_text = ngettext("%(n)d step", "%(n)d steps", step_count) % {"n": step_count}
        parts.append(steps_text if step_count else _("no steps"))
        if node.parallel:
            parts.append(_("in parallel"))
    elif not node.label.startswith(node.kind):
        parts.append(str(_KIND_LABELS.get(node.kind, node.kind)))
    if (
        node.kind == "Approval"
        and node.required_approvals is not None
        and node.required_approvals > 1
    ):
        parts.append(_("%(n)d approvals required") % {"n": node.required_approvals})
    if node.condition is not None:
        parts.append(_condition_text(node, node.condition))
    elif _goes_on_at_once(node):
        parts.append(_("does not wait for its end"))
    if node.skip:
        parts.append(_("set to skip"))
    return ", ".join(parts)


def _condition_text(node: Node, condition: str) -> str:
    label = _SUBJECTS.get(node.target_kind or "") if node.kind == "Condition" else None
    subject = str(label) if label else pgettext("subject", "it")
    template = str(_CONDITION_TEXTS.get(condition, _("waits until %(subject)s is “%(condition)s”")))
    return template % {"subject": subject, "condition": condition}


def _goes_on_at_once(node: Node) -> bool:
    """Return whether the run only starts the step's work, and does not wait for it."""
    return node.condition is None and node.kind in _WAITABLE_KINDS


def wait_text(node: Node) -> str:
    """Return what a step in progress waits for, and for how long at most; empty if unknown."""
    awaited = steps.awaited_kind(node)
    if _goes_on_at_once(node) and awaited not in {steps.APPROVAL, steps.EXTERNAL}:
        awaited = ""
    waiting = _waiting_for(awaited)
    if node.timeout_seconds is None or node.timeout_seconds <= 0:
        return waiting
    timeout_text = _("times out after %(time)s")
    timeout_text %= {"time": durations.format_rounded(timedelta(seconds=node.timeout_seconds))}
    return f"{waiting}, {timeout_text}" if waiting else timeout_text


def _waiting_for(kind: str) -> str:
    if kind == steps.EXTERNAL:
        return _("waiting for an external response")
    if kind == steps.APPROVAL:
        return _("waiting for approval")
    subject = _SUBJECTS.get(kind)
    return _("waiting for %(subject)s") % {"subject": subject} if subject else ""


def error_text(node: Node) -> str:
    """Return a step's error with its code; empty: none."""
    if node.error_code is None:
        return node.error_message or ""
    template = _("%(error)s (code %(code)s)") if node.error_message else _("Failed (code %(code)s)")
    return template % {"error": node.error_message, "code": node.error_code}
