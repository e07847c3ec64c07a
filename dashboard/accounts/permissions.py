"""Who may see, and who may abort: asked by every way in, answered here only.

Rights are granted to groups, for a project and a stage or for all of them (models/grants.py). From
the start everybody who is signed in sees everything, and “Release managers” abort everywhere.
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
from django.utils.translation import gettext as _

from dashboard.models import Grant, Stage
from dashboard.models.grants import Right

RELEASE_MANAGERS = "Release managers"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a thing is allowed and, where it is not, why, and who can."""

    allowed: bool
    why_not: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """A grant as rights are judged by it; 0 and "" mean all."""

    right: str
    project: int
    stage: str
    group: str  # "": everybody who is signed in

    def covers(self, project: int, stage: str) -> bool:
        """Say whether the rule speaks of runs of this stage, in this project."""
        return self.project in {0, project} and self.stage in {"", stage}


@dataclass(frozen=True)
class Rights:
    """What a person may do: equal, and hashable, for all who may do the same."""

    signed_in: bool
    everything: bool  # a superuser
    mine: frozenset[Rule]
    others: frozenset[Rule]  # what else lets somebody abort: named where this person may not
    off: str = ""  # why nobody may change anything; empty: they may

    @cached_property
    def sees(self) -> frozenset[tuple[int, str]]:
        """The places that the person sees, as rules name them; equal for all who see the same."""
        if self.sees_all:
            return frozenset({(0, "")})
        return frozenset((rule.project, rule.stage) for rule in self.mine)

    @cached_property
    def sees_all(self) -> bool:
        """Whether no place is hidden from the person."""
        return self.everything or any((rule.project, rule.stage) == (0, "") for rule in self.mine)

    def may_see(self, stage: Stage) -> bool:
        """Say whether the person may see runs of a stage; who may abort there may."""
        here = stage.pipeline.project_id, stage.name
        return self.sees_all or any(rule.covers(*here) for rule in self.mine)

    def may_abort(self, stage: Stage) -> Verdict:
        """Say whether the person may abort runs of a stage and, if not, who can."""
        return self.verdict(stage.pipeline.project_id, stage.name)

    def verdict(self, project: int, stage: str) -> Verdict:
        """Say the same of a stage that is not loaded: by its project's key and its name."""
        if self.off:
            return Verdict(False, self.off)
        if self.everything:
            return Verdict(True)
        here = [rule for rule in self.mine if rule.covers(project, stage)]
        if any(rule.right == Right.ABORT for rule in here):
            return Verdict(True)
        return Verdict(False, _who_can(r for r in self.others if r.covers(project, stage)))

    def may_look(self, stage: Stage) -> Verdict:
        """Say whether the person may let others know that they look at runs of a stage."""
        if settings.READ_ONLY:
            return Verdict(False, _read_only())
        return (
            Verdict(True) if self.may_see(stage) else Verdict(False, _("You may not see this run."))
        )

    def why_not(self, stages: Iterable[Stage]) -> str:
        """Say why runs of some of `stages` may not be aborted, and who can; empty: all may be.

        Each reason once: what a disabled button says, nobody can touch or reach by a key.
        """
        verdicts = {self.may_abort(stage) for stage in stages}
        reasons = sorted(verdict.why_not for verdict in verdicts if not verdict.allowed)
        said = " ".join(reasons)
        if reasons and len(verdicts) > 1:
            return _("Where Abort is disabled: %(reasons)s") % {"reasons": said}
        return said

    @property
    def may_abort_somewhere(self) -> bool:
        """Whether there is any place where the person may abort."""
        if self.off or not self.signed_in:
            return False
        return self.everything or any(rule.right == Right.ABORT for rule in self.mine)

    def places(self, of_stage: str = "") -> Q:
        """Return the condition for places the person may see.

        `of_stage` is the path from the queried model to its stage; empty: a stage is queried.
        """
        if self.sees_all:
            return Q()
        to = f"{of_stage}__" if of_stage else ""
        seen = Q(pk__in=[])
        for rule in self.mine:
            here = Q(**{f"{to}pipeline__project": rule.project}) if rule.project else Q()
            seen |= here & Q(**{f"{to}name": rule.stage}) if rule.stage else here
        return seen

    def projects(self, of_project: str = "") -> Q:
        """Return the condition for projects of which the person may see anything.

        `of_project` is the path from the queried model to its project; empty: that is queried.
        """
        if any(project == 0 for project, _stage in self.sees):
            return Q()
        return Q(**{f"{of_project or 'pk'}__in": sorted({project for project, _ in self.sees})})

    @cached_property
    def tag(self) -> str:
        """The rights as text: equal where they are, in every process."""
        parts = self.signed_in, self.everything, sorted(self.mine), sorted(self.others), self.off
        return repr(parts)

    def reading_only(self) -> "Rights":
        """Return the same rights to see, and none to abort: what a token for reading has."""
        return replace(self, off=self.off or _("This token is for reading only."))


def rights(of: AbstractBaseUser | AnonymousUser) -> Rights:
    """Return what `of` may do now."""
    if not isinstance(of, User) or not of.is_active:
        return Rights(False, False, frozenset(), _granted(abort_only=True), _off())
    if of.is_superuser:
        return _judged(of, (), frozenset())
    return _judged(of, of.groups.values_list("name", flat=True), _granted())


def rights_of(keys: Collection[int]) -> dict[int, Rights]:
    """Return what each of these people may do now, by their keys, without who may not sign in."""
    granted = _granted()
    people = User.objects.filter(pk__in=keys, is_active=True).prefetch_related("groups")
    return {
        person.pk: _judged(person, [group.name for group in person.groups.all()], granted)
        for person in people
    }


ALL = Rights(True, True, frozenset(), frozenset())  # for what looks on behalf of nobody


def may_abort(user: AbstractBaseUser | AnonymousUser, stage: Stage) -> Verdict:
    """Say whether `user` may abort runs of `stage` now."""
    return rights(user).may_abort(stage)


def _judged(person: User, groups: Iterable[str], granted: frozenset[Rule]) -> Rights:
    if person.is_superuser:
        return Rights(True, True, frozenset(), frozenset(), _off())
    names = set(groups)
    mine = frozenset(rule for rule in granted if not rule.group or rule.group in names)
    others = frozenset(rule for rule in granted - mine if rule.right == Right.ABORT)
    return Rights(True, False, mine, others, _off())


def _read_only() -> str:
    return _("This dashboard is switched to read-only.")


def _off() -> str:
    if settings.READ_ONLY:
        return _read_only()
    if not settings.ABORTS_ENABLED:
        return _("Aborting is switched off on this dashboard.")
    return ""


def _granted(*, abort_only: bool = False) -> frozenset[Rule]:
    rows = Grant.objects.values_list("right", "project", "stage", "group__name")
    return frozenset(
        Rule(right, project or 0, stage, group or "")
        for right, project, stage, group in rows
        if right == Right.ABORT or not abort_only
    )


_NAMED = 3  # groups; more are not read at a glance


def _who_can(rules: Iterable[Rule]) -> str:
    groups = sorted({rule.group for rule in rules})
    if not groups:
        return _("Nobody but an administrator of this dashboard may abort runs here.")
    named = [_("“%(group)s”") % {"group": name[:60]} for name in groups[:_NAMED]]
    if len(groups) > _NAMED:
        named.append(_("others"))
    if len(named) == 1:
        return _("Only members of the group %(group)s may abort runs here.") % {"group": named[0]}
    said = _("Only members of %(groups)s or %(last)s may abort runs here.")
    return said % {"groups": ", ".join(named[:-1]), "last": named[-1]}


def keep_group(**_sent: Any) -> None:
    """Make the group that may abort, with its right, where it does not exist yet."""
    if Grant._meta.db_table not in connection.introspection.table_names():
        return  # on the way to an older state of the database
    group, created = Group.objects.get_or_create(name=RELEASE_MANAGERS)
    if created:
        # Where rights have been granted already, nobody is given more than that.
        if not Grant.objects.exists():
            Grant.objects.create(group=None, right=Right.SEE)
        Grant.objects.create(group=group, right=Right.ABORT)


def keep_group_after_migrations(of: AppConfig) -> None:
    """Run `keep_group` after each migration of this application."""
    post_migrate.connect(
        keep_group, sender=of, dispatch_uid="dashboard.accounts.permissions.keep_group"
    )
