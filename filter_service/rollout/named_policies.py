"""Finds the policy that somebody means: by name, by digest, or written out."""

import json
import re
from typing import Any

import yaml

from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.session import Sessions
from filter_service.errors import InvalidPolicy, UnknownPolicy
from filter_service.policy import Policy, parse_policy
from filter_service.rollout.versions import active_policy, version_of

LARGEST_POLICY = 2**18  # letters of one that is sent

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def policy_for(sessions: Sessions, asked: str | dict[str, Any], scope: Scope = OPERATOR) -> Policy:
    """The policy that is named or written out; raises UnknownPolicy or InvalidPolicy."""
    if isinstance(asked, dict):
        return parse_policy(json.dumps(asked))
    name = asked.strip()
    if _DIGEST.fullmatch(name):
        return version_of(sessions, name, scope).policy
    if not _NAME.fullmatch(name):
        return written_policy(asked)
    with sessions.begin() as session:
        found = active_policy(session, name, scope)
    if found is None:
        raise UnknownPolicy(
            f"There is no stored policy {name!r}: send the policy itself, which stores it."
        )
    return found


def written_policy(text: str, source: str = "policy") -> Policy:
    """A policy as somebody sent it; raises InvalidPolicy."""
    _refuse_references(text)
    return parse_policy(text, source)


def _refuse_references(text: str) -> None:
    """A few lines of YAML that refer to each other can unfold to gigabytes."""
    if len(text) > LARGEST_POLICY:
        raise InvalidPolicy(
            f"policy:1: the document has more than {LARGEST_POLICY:,} letters; shorten it."
        )
    try:
        aliases = any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
    except yaml.YAMLError:  # parsing will name the line
        return
    if aliases:
        raise InvalidPolicy("policy:1: YAML references (*name) are not taken; write it out.")
