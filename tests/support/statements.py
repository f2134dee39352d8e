"""Makes decisions that require statements of reasons, without judging any image."""

import base64
import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

import numpy as np
import yaml
from sqlalchemy import insert, select, update

from filter_service.canonical import canonical
from filter_service.db.embeddings import register_encoder
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Item,
    Person,
    PolicyClass,
    StatementDue,
    StoredExplanation,
    StoredStatement,
)
from filter_service.policy import Policy, parse_policy
from filter_service.reviews import case_claims
from filter_service.reviews.decisions import decide
from filter_service.reviews.settlement import Decision, settle
from filter_service.statements.explanation_summary import ExplanationSummary
from filter_service.statements.reasons import DecisionMaker, Reasons, Strength
from filter_service.verdicts.explanation import Explanation
from tests.support.proofs import PASSED
from tests.support.review_cases import LEASE, Wanted, cases_of

POLICY = """\
name: house
neutral: [a wall]
classes:
  - name: gun
    prompts: [a gun]
    threshold: 0.5
    severity: high
    clause: Pictures of weapons are not allowed.
    statement:
      category: violence
      keywords: [coordinated_harm]
      ground: incompatible
      reference: Rules, section 4
      explanation: A picture of a weapon can frighten people and advertise what is not sold here.
      visibility: [removed]
  - name: knife
    prompts: [a knife]
    threshold: 0.5
    severity: low
    clause: No knives that are shown as weapons.
    calibration: {a: 1.1, b: 0.2}
    statement:
      category: unsafe_and_prohibited_products
      additions: [risk_for_public_security]
      keywords: [prohibited_products, other]
      keyword_other: knives
      ground: illegal
      legal_ground: Weapons Act, section 42a
      explanation: To offer such knives is an offence.
      visibility: [disabled, other]
      visibility_other: The picture is not found by a search any more.
      monetary: other
      monetary_other: No advertisement is shown beside it.
      provision: partial_suspension
      account: suspended
      days: 90
  - name: fork
    prompts: [a fork]
    threshold: 0.5
notices:
  platform: Marketplace
  terms_url: https://marketplace.example/rules/7
  complaint_url: https://marketplace.example/complaints
  settlement: The Council for Disputes Online
  settlement_url: https://disputes.example
  languages: [en, de]
  territory: [DE, AT, FR]
"""


@cache
def _known() -> Policy:
    return parse_policy(POLICY)


def policy(**notices: object) -> Policy:
    """A policy that sends statements; some of what notices say is other."""
    known = _known()
    assert known.notices is not None
    return known.model_copy(
        update={"notices": known.notices.model_validate({**known.notices.model_dump(), **notices})}
    )


def items_of(
    sessions: Sessions, *wanted: str, of: Policy | None = None, sampled: bool = False
) -> list[int]:
    """Items that wait for review, each for a class."""
    margin = -1.0 if sampled else 2.0
    found = cases_of(sessions, [Wanted(name, margin, sampled) for name in wanted], of or policy())
    with sessions.begin() as session:
        session.execute(update(Item).where(Item.id.in_(found)).values(probability=0.88))
    return found


def decided(
    sessions: Sessions, person: Person, item_id: int, decision: Decision = Decision.CONFIRMED
) -> None:
    """Somebody decides, with effect at once."""
    case_claims.claim(sessions, person, item_id, LEASE)
    decide(sessions, person, item_id, decision, undo_seconds=0)
    settle(sessions)


def explained(sessions: Sessions, item_id: int, name: str = "gun", **fields: Any) -> None:
    """Keep an explanation of an item's flag: the upper left of the picture, and the word `gun`."""
    record = explanation(name, **fields)
    with sessions.begin() as session:
        encoder_id = register_encoder(session, "ab" * 32, "simple", 4, {})
        class_id = session.scalars(
            select(PolicyClass.id).where(PolicyClass.name == name).order_by(PolicyClass.id.desc())
        ).first()
        session.execute(update(Item).where(Item.id == item_id).values(encoder_id=encoder_id))
        row = {
            "item_id": item_id,
            "class_id": class_id,
            "encoder_id": encoder_id,
            "faithful": record.faithful,
            "record": record.model_dump(mode="json"),
        }
        session.execute(insert(StoredExplanation), [row])


def explanation(name: str = "gun", **fields: Any) -> Explanation:
    grid = np.zeros((6, 6), dtype="<f2")
    grid[0, 0], grid[5, 5] = 3.0, 1.0
    word = {"standard_error": 0.0, "leave_one_out": 1.0}
    known: dict[str, Any] = {
        "class_name": name,
        "frame": 0,
        "margin": 2.0,
        "probability": 0.88,
        "threshold": 0.5,
        "calibrated": False,
        "boundary_degrees": None,
        "map": {
            "method": "exact",
            "grid": {"shape": [6, 6], "float16": base64.b64encode(grid.tobytes()).decode()},
            "total": 4.0,
            "remainder": 0.0,
            "high_norm": 0,
        },
        "no_map": None,
        "words": [
            {
                "prompt": f"a {name}",
                "weight": 1.0,
                "logit": 20.0,
                "empty": 17.0,
                "words": [
                    {"word": "a", "shapley": 0.2, "substituted": 0.1, **word},
                    {"word": name, "shapley": 2.8, "substituted": 2.0, **word},
                ],
            }
        ],
        "images": [],
        "no_images": "none",
        "texts": [],
        "region": None,
        "proof": PASSED.model_dump(mode="json"),
        "provenance": {
            "encoder": "simple",
            "fingerprint": "ab" * 32,
            "policy": "house",
            "policy_digest": "cd" * 32,
            "code": "1",
            "seed": 0,
        },
    }
    return Explanation.model_validate_json(canonical({**known, **fields}))


def statements(sessions: Sessions, *items: int) -> Sequence[StoredStatement]:
    """What was issued, in order; of some items only, if any are given."""
    query = select(StoredStatement).order_by(StoredStatement.issued_at, StoredStatement.puid)
    if items:
        query = query.where(StoredStatement.item_id.in_(items))
    with sessions.begin() as session:
        return list(session.scalars(query))


def waiting(sessions: Sessions) -> list[int]:
    """Items whose decisions nobody has looked at for a statement."""
    with sessions.begin() as session:
        return list(session.scalars(select(StatementDue.item_id).order_by(StatementDue.item_id)))


def reasons(name: str = "gun", of: Policy | None = None, **fields: Any) -> Reasons:
    """What a statement is made of: a person confirmed what the model had found."""
    known = of or policy()
    forbidden = known.forbidden(name)
    found: dict[str, Any] = {
        "item_id": 1,
        "batch_id": uuid.UUID(int=1),
        "policy": known,
        "forbidden": forbidden,
        "found_by": DecisionMaker.MODEL,
        "decided_by": DecisionMaker.PERSON,
        "decided_at": datetime(2026, 11, 21, 12, tzinfo=UTC),
        "content_date": date(2026, 11, 20),
        "review_id": 1,
        "entry_id": None,
        "match": None,
        "strength": Strength(0.88, forbidden.threshold, 2.0, forbidden.calibration is not None),
        "evidence": ExplanationSummary.of(explanation(name)),
        "looks": 1,
        "revealed": True,
    }
    return Reasons(**{**found, **fields})


def with_class(**fields: object) -> str:
    """The policy as a text, with other fields of its first class's mapping."""
    known = yaml.safe_load(POLICY)
    known["classes"][0]["statement"] |= fields
    return yaml.safe_dump(known)
