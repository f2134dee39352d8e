"""Builds a version of a policy from an edited document; what was learnt stays where words do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from filter_service.policy import ForbiddenClass, Policy, PolicyFault, validated

LEARNT = ("calibration", "head")  # fields of a class that mean nothing for other words


@dataclass(frozen=True, slots=True)
class EditedVersion:
    """What an edited document is, or everything that is wrong with it."""

    policy: Policy | None
    faults: tuple[PolicyFault, ...] = ()
    left_out: tuple[int, ...] = ()  # classes whose calibration or head was for other words


def edited(
    document: Mapping[str, Any], base: Mapping[str, Any], were: Sequence[str]
) -> EditedVersion:
    """A version from a document that was filled from another one, `base`, which may be empty.

    `were` are the names that the document's classes had there; empty: it is new.
    """
    classes = document.get("classes", [])
    bare = [{k: v for k, v in c.items() if k not in LEARNT} for c in classes]
    plain = validated({**document, "classes": bare})
    if isinstance(plain, list):
        return EditedVersion(None, tuple(plain))
    before = validated(base)
    same = [_same_words(plain, c, before, was) for c, was in zip(plain.classes, were, strict=True)]
    kept = [whole if stays else c for whole, c, stays in zip(classes, bare, same, strict=True)]
    found = validated({**document, "classes": kept})
    if isinstance(found, list):
        return EditedVersion(None, tuple(found))
    gone = [i for i, (whole, c) in enumerate(zip(classes, kept, strict=True)) if whole != c]
    return EditedVersion(found, left_out=tuple(gone))


def policy_document(policy: Policy) -> str:
    """A policy as a YAML file that gives the same version when it is read."""
    document = policy.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def _same_words(
    new: Policy, forbidden: ForbiddenClass, old: Policy | list[PolicyFault], was: str
) -> bool:
    if isinstance(old, list) or was not in {c.name for c in old.classes}:
        return False
    same = new.wording(forbidden) == old.wording(old.forbidden(was))
    return same and new.coverage == old.coverage
