"""Accounts and access: users, roles, log-ins, API keys and clients."""

from filter_service.accounts.api_keys import add_key, key_of, keys, revoke_key
from filter_service.accounts.image_views import has_revealed, reveal, revealed_today
from filter_service.accounts.logins import authenticate, person_of, sign_in_as, sign_out
from filter_service.accounts.roles import ABILITIES, Ability, Role, may, sees
from filter_service.accounts.users import (
    Profile,
    add_person,
    change_person,
    colleagues,
    disable_person,
    enable_person,
    everybody,
    known_classes,
    person_named,
    set_password,
)

__all__ = [
    "ABILITIES",
    "Ability",
    "Profile",
    "Role",
    "add_key",
    "add_person",
    "authenticate",
    "change_person",
    "colleagues",
    "disable_person",
    "enable_person",
    "everybody",
    "has_revealed",
    "key_of",
    "keys",
    "known_classes",
    "may",
    "person_named",
    "person_of",
    "reveal",
    "revealed_today",
    "revoke_key",
    "sees",
    "set_password",
    "sign_in_as",
    "sign_out",
]
