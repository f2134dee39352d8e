"""Who acts: a person who works here, or an API key."""

from dataclasses import dataclass

from filter_service.accounts.roles import ABILITIES, Ability, Role
from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.tables import Person


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated sender of a request: a person or an API key."""

    actor: str  # how the ledger calls them: "person LOGIN" or "key NAME"
    role: Role
    person: Person | None  # None: an API key
    scope: Scope = OPERATOR  # whose rows they see; people who work here see all

    rights: frozenset[Ability] = frozenset()  # of a key, beyond those of its role

    def can(self, ability: Ability) -> bool:
        return ability in ABILITIES[self.role] | self.rights

    @property
    def owner(self) -> str:
        """Whose idempotency keys theirs are: keys of one client share them."""
        return f"client {self.scope.client_id}" if self.person is None else self.actor
