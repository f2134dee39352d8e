"""Roles: what each of them may do, and which classes somebody may see."""

from enum import StrEnum

from filter_service.db.tables import Person


class Role(StrEnum):
    """The role of a person."""

    ADMIN = "admin"
    POLICY_EDITOR = "policy_editor"
    MODERATOR = "moderator"
    SENIOR = "senior"
    AUDITOR = "auditor"
    CUSTODIAN = "custodian"  # the only one who knows what restricted classes hold
    SERVICE = "service"  # a platform with an API key, never a person


class Ability(StrEnum):
    """What a role may do."""

    SUBMIT = "submit"  # batches, and cancel and retry them
    READ = "read"  # items, batches, explanations
    SEARCH = "search"
    REVEAL = "reveal"  # see an image unblurred
    REVIEW = "review"  # claim and decide
    REVIEW_SENIOR = "review as senior"  # escalated and disputed cases
    APPEAL = "appeal"  # open an appeal
    REPORT = "report"  # say that a picture is forbidden
    RULES = "rules"  # review rules and lists
    RETRY = "retry"  # undetermined items
    PEOPLE = "people"  # people, keys
    WEBHOOKS = "webhooks"
    AUDIT = "audit"  # ledger, decision records, everybody's reviews
    EXPORT = "export"  # rows, statements of reasons, transparency figures
    POLICIES = "policies"  # propose and activate versions
    RETAIN = "retain"  # retention rules, legal holds, erasure
    CUSTODY = "custody"  # what is locked away


_READING = {Ability.READ, Ability.SEARCH, Ability.REVEAL}

ABILITIES: dict[Role, frozenset[Ability]] = {
    Role.ADMIN: frozenset(set(Ability) - {Ability.CUSTODY}),
    Role.POLICY_EDITOR: frozenset(_READING | {Ability.RULES, Ability.RETRY, Ability.POLICIES}),
    Role.MODERATOR: frozenset(_READING | {Ability.REVIEW, Ability.REPORT}),
    Role.SENIOR: frozenset(
        _READING
        | {Ability.REVIEW, Ability.REVIEW_SENIOR, Ability.RETRY, Ability.RULES, Ability.REPORT}
    ),
    Role.AUDITOR: frozenset(_READING | {Ability.AUDIT, Ability.EXPORT}),
    Role.CUSTODIAN: frozenset({Ability.CUSTODY}),
    Role.SERVICE: frozenset(
        {
            *(Ability.SUBMIT, Ability.READ, Ability.SEARCH, Ability.APPEAL, Ability.REPORT),
            Ability.WEBHOOKS,
        }
    ),
}


def may(person: Person, ability: Ability) -> bool:
    return person.disabled_at is None and ability in ABILITIES[Role(person.role)]


def sees(person: Person, class_name: str) -> bool:
    """Whether this person may see images flagged for a class."""
    return person.classes is None or class_name in person.classes
