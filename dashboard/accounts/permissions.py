"""Who may view runs, see logs and abort: the only place that decides it, for pages, API, commands.

Permissions are granted to groups, for one project and stage or for all
(models/accounts/grants.py). By default every signed-in user sees everything, and “Release managers”
may abort everywhere. Whoever may abort may see logs, and whoever may see logs may view.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, Group, User
from django.db import connection
from django.db.models import Q
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy

from dashboard.models import Grant, Stage
from dashboard.models.accounts.grants import RANKS, Action
from dashboard.texts.rich_text import Message, MessageTable, join_texts

RELEASE_MANAGERS = "Release managers"
MAX_NAMED_GROUPS = 3  # more cannot be read at a glance
_text = MessageTable(
    {
        "read_only": gettext_lazy("This dashboard is read-only."),
        "aborts_disabled": gettext_lazy("Aborts are disabled on this dashboard."),
        "token_read_only": gettext_lazy("This API token is read-only."),
        "token_without_logs": gettext_lazy("This API token may not see logs."),
        "view_denied": gettext_lazy("You do not have permission to view this run."),
        "superusers_only": gettext_lazy("Ask a superuser to abort here."),
        "group_only": gettext_lazy("Ask someone in %(group)s to abort here."),
        "groups_only": gettext_lazy("Ask someone in %(groups)s or %(last)s to abort here."),
        "logs_superusers_only": gettext_lazy("You may not see logs here. Ask a superuser."),
        "logs_group_only": gettext_lazy("You may not see logs here. Ask someone in %(group)s."),
        "logs_groups_only": gettext_lazy(
            "You may not see logs here. Ask someone in %(groups)s or %(last)s."
        ),
        "group": gettext_lazy("“%(group)s”"),
        "other_groups": gettext_lazy("%(n)d more"),
        "some_denied": gettext_lazy("You cannot abort some of these runs. %(reasons)s"),
    }
)


@dataclass(frozen=True, slots=True)
class Permission:
    """Whether an action is allowed and, if not, why and who may do it."""

    allowed: bool
    denied_reason: Message | str = ""


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """A grant in plain values; 0 and "" mean all."""

    action: str
    project_id: int
    stage: str
    group: str  # "": all signed-in users

    def covers(self, project: int, stage: str) -> bool:
        """Return whether the rule applies to runs of this stage in this project."""
        return self.project_id in {0, project} and self.stage in {"", stage}

    def allows(self, action: str) -> bool:
        """Return whether it allows the action, perhaps as part of a wider one."""
        return RANKS[self.action] >= RANKS[action]

    def overlaps(self, project: int, stage: str) -> bool:
        """Return whether it applies anywhere in this place; 0 and "" mean any."""
        in_project = not (project and self.project_id) or self.project_id == project
        return in_project and (not (stage and self.stage) or self.stage == stage)


@dataclass(frozen=True, slots=True)
class Right:
    """What may be done in a project and stage, and the rules that allow it, the narrowest first."""

    action: str = ""  # the widest Action; "": nothing
    rules: tuple[Rule, ...] = ()  # none for superusers


@dataclass(frozen=True)
class Permissions:
    """What a user may do; hashable, and equal for users with the same permissions."""

    is_signed_in: bool
    is_superuser: bool
    rules: frozenset[Rule]
    other_rules: frozenset[Rule]  # other groups' rules beyond viewing, for denied_reason
    disabled_reason: Message | str = ""  # why aborting is disabled; empty: it is enabled
    logs_disabled_reason: Message | str = ""  # the same of logs

    @cached_property
    def visible_scopes(self) -> frozenset[tuple[int, str]]:
        """The (project id, stage name) pairs that the user may view; 0 and "" mean all."""
        if self.can_view_all:
            return frozenset({(0, "")})
        return frozenset((rule.project_id, rule.stage) for rule in self.rules)

    @cached_property
    def can_view_all(self) -> bool:
        """Whether the user may view every stage of every project."""
        return self.is_superuser or any(
            (rule.project_id, rule.stage) == (0, "") for rule in self.rules
        )

    def can_view(self, stage: Stage) -> bool:
        """Return whether the user may view runs of a stage; permission to abort includes it."""
        scope = stage.pipeline.project_id, stage.name
        return self.can_view_all or any(rule.covers(*scope) for rule in self.rules)

    def abort_permission(self, stage: Stage) -> Permission:
        """Return whether the user may abort runs of a stage and, if not, who may."""
        return self.abort_permission_at(stage.pipeline.project_id, stage.name)

    def abort_permission_at(self, project_id: int, stage_name: str) -> Permission:
        """Like `abort_permission`, for a stage that is not loaded."""
        return self._permission(Action.ABORT, self.disabled_reason, project_id, stage_name)

    def logs_permission(self, stage: Stage) -> Permission:
        """Return whether the user may see logs of runs of a stage and, if not, who may."""
        place = stage.pipeline.project_id, stage.name
        return self._permission(Action.LOGS, self.logs_disabled_reason, *place)

    def _permission(
        self, action: Action, disabled_reason: Message | str, project_id: int, stage_name: str
    ) -> Permission:
        if disabled_reason:
            return Permission(False, disabled_reason)
        if self.is_superuser:
            return Permission(True)
        if any(rule.allows(action) for rule in self._covering(project_id, stage_name)):
            return Permission(True)
        others = (
            rule
            for rule in self.other_rules
            if rule.allows(action) and rule.covers(project_id, stage_name)
        )
        return Permission(False, _denied_reason(action, others))

    def right_at(self, project_id: int, stage_name: str) -> Right:
        """Return what the grants allow in a project and stage, 0 and "" meaning all, and why.

        Whether aborting is disabled for everybody (`disabled_reason`) does not count.
        """
        if self.is_superuser:
            return Right(Action.ABORT)
        covering = self._covering(project_id, stage_name)
        widest = max((rule.action for rule in covering), key=RANKS.__getitem__, default="")
        rules = [rule for rule in covering if rule.action == widest]
        rules.sort(key=lambda rule: (not rule.project_id, not rule.stage, not rule.group, rule))
        return Right(widest, tuple(rules))

    def _covering(self, project_id: int, stage_name: str) -> list[Rule]:
        return [rule for rule in self.rules if rule.covers(project_id, stage_name)]

    def acknowledge_permission(self, stage: Stage) -> Permission:
        """Return whether the user may acknowledge runs of a stage."""
        if settings.READ_ONLY:
            return Permission(False, read_only_reason())
        return Permission(True) if self.can_view(stage) else Permission(False, _text("view_denied"))

    def abort_denied_reasons(self, places: Iterable[tuple[int, str]]) -> Message | str:
        """Return why runs of some places may not be aborted, and who may; empty: all may be.

        A place is the key of a project and the name of a stage. Each reason appears once. Pages
        show it as text, since touch and keyboard do not reach the tooltip of a disabled button.
        """
        permissions = {self.abort_permission_at(*place) for place in places}
        reasons = sorted((p.denied_reason for p in permissions if not p.allowed), key=str)
        if reasons and len(permissions) > 1:
            return _text("some_denied", reasons=join_texts(*reasons))
        return reasons[0] if reasons else ""

    @property
    def can_abort_anywhere(self) -> bool:
        """Whether the user may abort runs of at least one stage."""
        if self.disabled_reason or not self.is_signed_in:
            return False
        return self.is_superuser or any(rule.action == Action.ABORT for rule in self.rules)

    def stage_filter(self, path: str = "") -> Q:
        """Return a filter for the stages that the user may view.

        `path` is the lookup path from the queried model to its stage; empty: stages are queried.
        """
        if self.can_view_all:
            return Q()
        prefix = f"{path}__" if path else ""
        visible = Q(pk__in=[])
        for rule in self.rules:
            in_project = (
                Q(**{f"{prefix}pipeline__project": rule.project_id}) if rule.project_id else Q()
            )
            visible |= in_project & Q(**{f"{prefix}name": rule.stage}) if rule.stage else in_project
        return visible

    def project_filter(self, path: str = "") -> Q:
        """Return a filter for the projects in which the user may view any stage.

        `path` is the lookup path from the queried model to its project; empty: projects are
        queried.
        """
        if any(project == 0 for project, _stage in self.visible_scopes):
            return Q()
        return Q(**{f"{path or 'pk'}__in": sorted({project for project, _ in self.visible_scopes})})

    @cached_property
    def cache_key(self) -> str:
        """The permissions as text; equal permissions give equal text in every process."""
        parts = (
            self.is_signed_in,
            self.is_superuser,
            sorted(self.rules),
            sorted(self.other_rules),
            self.disabled_reason,
            self.logs_disabled_reason,
        )
        return repr(parts)

    def view_only(self, *, with_logs: bool = False) -> "Permissions":
        """Return the same permissions without aborting, as for a read-only API token.

        Without seeing logs, too, unless `with_logs`.
        """
        return replace(
            self,
            disabled_reason=self.disabled_reason or _text("token_read_only"),
            logs_disabled_reason="" if with_logs else _text("token_without_logs"),
        )


def for_user(user: AbstractBaseUser | AnonymousUser | None) -> Permissions:
    """Return the current permissions of `user`; inactive, anonymous and deleted users have none."""
    if not isinstance(user, User) or not user.is_active:
        return Permissions(
            False, False, frozenset(), load_rules(beyond_viewing=True), _disabled_reason()
        )
    if user.is_superuser:
        return build(True, (), frozenset())
    return build(False, user.groups.values_list("name", flat=True), load_rules())


def for_users(user_ids: Collection[int]) -> dict[int, Permissions]:
    """Return the current permissions of each active user, by primary key."""
    rules = load_rules()
    users = User.objects.filter(pk__in=user_ids, is_active=True).prefetch_related("groups")
    return {
        user.pk: build(user.is_superuser, [group.name for group in user.groups.all()], rules)
        for user in users
    }


ALL = Permissions(True, True, frozenset(), frozenset())  # for work on behalf of no user


def abort_permission(user: AbstractBaseUser | AnonymousUser, stage: Stage) -> Permission:
    """Return whether `user` may abort runs of `stage` now."""
    return for_user(user).abort_permission(stage)


def build(is_superuser: bool, groups: Iterable[str], rules: frozenset[Rule]) -> Permissions:
    """Return the permissions of an active account in these groups; `rules` are those of all."""
    if is_superuser:
        return Permissions(True, True, frozenset(), frozenset(), _disabled_reason())
    return for_groups(groups, rules)


def for_groups(groups: Iterable[str], rules: frozenset[Rule]) -> Permissions:
    """Return what `rules` allow a member of `groups`; without groups: everybody signed in."""
    names = set(groups)
    own_rules = frozenset(rule for rule in rules if not rule.group or rule.group in names)
    others = frozenset(rule for rule in rules - own_rules if rule.allows(Action.LOGS))
    return Permissions(True, False, own_rules, others, _disabled_reason())


def read_only_reason() -> Message:
    """Return why nothing can be changed in read-only mode."""
    return _text("read_only")


def _disabled_reason() -> Message | str:
    if settings.READ_ONLY:
        return read_only_reason()
    if not settings.ABORTS_ENABLED:
        return _text("aborts_disabled")
    return ""


def load_rules(*, beyond_viewing: bool = False) -> frozenset[Rule]:
    """Return all grants; `beyond_viewing`: those that allow more than to view."""
    grants = Grant.objects.values_list("action", "project", "stage", "group__name")
    return frozenset(
        Rule(right, project or 0, stage, group or "")
        for right, project, stage, group in grants
        if right != Action.VIEW or not beyond_viewing
    )


def _denied_reason(action: Action, rules: Iterable[Rule]) -> Message:
    prefix = "logs_" if action == Action.LOGS else ""
    groups = sorted({rule.group for rule in rules})
    if not groups:
        return _text(f"{prefix}superusers_only")
    named = [_text("group", group=name[:60]) for name in groups[:MAX_NAMED_GROUPS]]
    if len(groups) > MAX_NAMED_GROUPS:
        named.append(_text("other_groups", n=len(groups) - MAX_NAMED_GROUPS))
    *others, last = named
    if not others:
        return _text(f"{prefix}group_only", group=last)
    return _text(f"{prefix}groups_only", groups=join_texts(*others, separator=", "), last=last)


def ensure_default_group(**_signal: Any) -> None:
    """Create the group of release managers and its grant to abort, unless the group exists."""
    if Grant._meta.db_table not in connection.introspection.table_names():
        return  # a migration backwards has removed the table
    group, created = Group.objects.get_or_create(name=RELEASE_MANAGERS)
    if created:
        # Once there are grants, do not open viewing to everybody.
        if not Grant.objects.exists():
            Grant.objects.create(group=None, action=Action.VIEW)
        Grant.objects.create(group=group, action=Action.ABORT)


def register(app_config: AppConfig) -> None:
    """Run `ensure_default_group` after each migration of this application."""
    post_migrate.connect(
        ensure_default_group,
        sender=app_config,
        dispatch_uid="dashboard.accounts.permissions.ensure_default_group",
    )
