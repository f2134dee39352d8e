"""Builds the JSON document for the DSA Transparency Database (version 2)."""

from datetime import UTC, timedelta
from typing import Any

from filter_service.policy.statement_grounds import Ground, keyword_code
from filter_service.statements.reasons import DecisionMaker, Reasons


def document(reasons: Reasons, facts: str) -> dict[str, Any]:
    """Every field that applies; those that do not are left out."""
    stated, notices = reasons.stated, reasons.notices
    fields = {
        "puid": str(reasons.puid),
        **_restrictions(reasons),
        **_ground(reasons),
        "decision_ground_reference_url": notices.terms_url,
        "category": stated.category.code,
        "category_addition": [c.code for c in stated.additions],
        "category_specification": [keyword_code(k) for k in stated.keywords],
        "category_specification_other": stated.keyword_other,
        "content_type": ["CONTENT_TYPE_IMAGE"],
        "content_date": reasons.content_date.isoformat(),
        "territorial_scope": sorted(notices.territory),
        "decision_facts": facts,
        "source_type": reasons.source.code,
        "automated_detection": "No" if reasons.found_by is DecisionMaker.PERSON else "Yes",
        "automated_decision": reasons.automation.code,
    }
    return {name: value for name, value in fields.items() if value not in (None, [])}


def _restrictions(reasons: Reasons) -> dict[str, Any]:
    """What is restricted, from when and until when."""
    stated = reasons.stated
    begin = reasons.decided_at.astimezone(UTC).date()
    end = None if stated.days is None else (begin + timedelta(days=stated.days)).isoformat()
    return {
        "decision_visibility": [v.code for v in stated.visibility],
        "decision_visibility_other": stated.visibility_other,
        "decision_monetary": stated.monetary and stated.monetary.code,
        "decision_monetary_other": stated.monetary_other,
        "decision_provision": stated.provision and stated.provision.code,
        "decision_account": stated.account and stated.account.code,
        "application_date": begin.isoformat(),
        "end_date_visibility_restriction": end if stated.visibility else None,
        "end_date_monetary_restriction": end if stated.monetary else None,
        "end_date_service_restriction": end if stated.provision else None,
        "end_date_account_restriction": end if stated.account else None,
    }


def _ground(reasons: Reasons) -> dict[str, Any]:
    stated = reasons.stated
    if stated.ground is Ground.ILLEGAL_CONTENT:
        own = {
            "illegal_content_legal_ground": stated.legal_ground,
            "illegal_content_explanation": stated.explanation,
        }
    else:
        own = {
            "incompatible_content_ground": stated.reference or reasons.forbidden.clause.strip(),
            "incompatible_content_explanation": stated.explanation,
            "incompatible_content_illegal": "Yes" if stated.also_illegal else "No",
        }
    return {"decision_ground": stated.ground.code, **own}
