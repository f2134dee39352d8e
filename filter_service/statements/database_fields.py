"""The fields of a statement in the Transparency Database (version 2), and what each may hold."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import date
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from filter_service.policy.statement_grounds import (
    EEA,
    EVERY_KEYWORD,
    Account,
    Automation,
    Category,
    Ground,
    Monetary,
    NoticeSource,
    Provision,
    Visibility,
    keyword_code,
)
from filter_service.statements.personal_data import find_personal_data

LATEST = date(2038, 1, 1)
YES_OR_NO = frozenset({"Yes", "No"})
CONTENT_TYPES = frozenset(
    f"CONTENT_TYPE_{t}"
    for t in ("APP", "AUDIO", "IMAGE", "OTHER", "PRODUCT", "SYNTHETIC_MEDIA", "TEXT", "VIDEO")
)
_LANGUAGES = """
AA AB AE AF AK AM AN AR AS AV AY AZ BA BE BG BH BI BM BN BO BR BS CA CE CH CO CR CS CU CV CY DA DE
DV DZ EE EL EN EO ES ET EU FA FF FI FJ FO FR FY GA GD GL GN GU GV HA HE HI HO HR HT HU HY HZ IA ID
IE IG II IK IO IS IT IU JA JV KA KG KI KJ KK KL KM KN KO KR KS KU KV KW KY LA LB LG LI LN LO LT LU
LV MG MH MI MK ML MN MR MS MT MY NA NB ND NE NG NL NN NO NR NV NY OC OJ OM OR OS PA PI PL PS PT QU
RM RN RO RU RW SA SC SD SE SG SI SK SL SM SN SO SQ SR SS ST SU SV SW TA TE TG TH TI TK TL TN TO TR
TS TT TW TY UG UK UR UZ VE VI VO WA WO XH YI YO ZA ZH ZU
"""
_PUID = re.compile(r"[A-Za-z0-9_-]+")
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def _broken(rule: str) -> PydanticCustomError:
    """A rule that a value breaks: how its sentence goes on behind the field's name."""
    return PydanticCustomError("rule", "{rule}", {"rule": rule})


def _one_of(codes: Collection[str]) -> BeforeValidator:
    def check_code(value: object) -> object:
        if not isinstance(value, str) or value not in codes:
            raise _broken(f"is {value!r}: it has to be one of {_listed(codes)}.")
        return value

    return BeforeValidator(check_code)


def _some_of(codes: Collection[str]) -> BeforeValidator:
    def check_codes(value: object) -> object:
        if not isinstance(value, list):
            raise _broken(f"is {value!r}: it has to be a list.")
        wrong = [m for m in value if not isinstance(m, str) or m not in codes]
        if wrong:
            raise _broken(f"holds {_all(wrong)}: it may hold {_listed(codes)}.")
        twice = [m for m, n in Counter(value).items() if n > 1]
        if twice:
            raise _broken(f"holds {_all(twice)} twice.")
        return value

    return BeforeValidator(check_codes)


def _nobody_named(text: str) -> str:
    if found := list(find_personal_data(text)):
        raise _broken(f"holds {', '.join(found)}: no personal data may be sent.")
    return text


def _day(value: object) -> object:
    if isinstance(value, str) and DAY.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise _broken(f"is {value!r}: it has to be a day as YYYY-MM-DD.")


def _from(earliest: date) -> AfterValidator:
    def check_day(day: date) -> date:
        if not earliest <= day <= LATEST:
            raise _broken(f"is {day}: it has to lie between {earliest} and {LATEST}.")
        return day

    return AfterValidator(check_day)


def _puid(text: str) -> str:
    if not _PUID.fullmatch(text):
        raise _broken(f"is {text!r}: only letters A-Z, a-z, digits, - and _ are taken.")
    return text


def _url(text: str) -> str:
    if not _is_url(text):
        raise _broken(f"is {text!r}: it has to be an http(s) address.")
    return text


def _content_id(value: object) -> object:
    known = isinstance(value, Mapping) and list(value) == ["EAN-13"]
    if not known or not re.fullmatch(r"\d{13}", str(value["EAN-13"])):  # type: ignore[index]
        raise _broken(f'is {value!r}: it has to be {{"EAN-13": 13 digits}}.')
    return value


Text = Annotated[str, Field(max_length=500), AfterValidator(_nobody_named)]
LongText = Annotated[str, Field(max_length=2_000), AfterValidator(_nobody_named)]
Day = Annotated[date, BeforeValidator(_day), _from(date(2020, 1, 1))]


class DatabaseStatement(BaseModel):
    """One statement as the database takes it; fields that are empty are left out before."""

    model_config = ConfigDict(strict=True, extra="forbid")

    puid: Annotated[str, Field(max_length=500), AfterValidator(_puid)]
    decision_visibility: Annotated[list[str], _some_of(Visibility.codes())] = []
    decision_visibility_other: Text | None = None
    decision_monetary: Annotated[str | None, _one_of(Monetary.codes())] = None
    decision_monetary_other: Text | None = None
    decision_provision: Annotated[str | None, _one_of(Provision.codes())] = None
    decision_account: Annotated[str | None, _one_of(Account.codes())] = None
    account_type: Annotated[
        str | None, _one_of({"ACCOUNT_TYPE_BUSINESS", "ACCOUNT_TYPE_PRIVATE"})
    ] = None
    decision_ground: Annotated[str, _one_of(Ground.codes())]
    decision_ground_reference_url: Annotated[
        str | None, Field(max_length=500), AfterValidator(_url)
    ] = None
    illegal_content_legal_ground: Text | None = None
    illegal_content_explanation: LongText | None = None
    incompatible_content_ground: Text | None = None
    incompatible_content_explanation: LongText | None = None
    incompatible_content_illegal: Annotated[str | None, _one_of(YES_OR_NO)] = None
    category: Annotated[str, _one_of(Category.codes())]
    category_addition: Annotated[list[str], _some_of(Category.codes())] = []
    category_specification: Annotated[
        list[str], _some_of(frozenset(map(keyword_code, EVERY_KEYWORD)))
    ] = []
    category_specification_other: Text | None = None
    content_type: Annotated[list[str], _some_of(CONTENT_TYPES)]
    content_type_other: Text | None = None
    content_language: Annotated[str | None, _one_of(frozenset(_LANGUAGES.split()))] = None
    content_date: Annotated[date, BeforeValidator(_day), _from(date(2000, 1, 1))]
    content_id: Annotated[dict[str, Any] | None, BeforeValidator(_content_id)] = None
    territorial_scope: Annotated[list[str], _some_of(frozenset(EEA))] = []
    application_date: Day
    end_date_visibility_restriction: Day | None = None
    end_date_monetary_restriction: Day | None = None
    end_date_service_restriction: Day | None = None
    end_date_account_restriction: Day | None = None
    decision_facts: Annotated[str, Field(max_length=5_000), AfterValidator(_nobody_named)]
    source_type: Annotated[str, _one_of(NoticeSource.codes())]
    source_identity: Text | None = None
    automated_detection: Annotated[str, _one_of(YES_OR_NO)]
    automated_decision: Annotated[str, _one_of(Automation.codes())]


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", text)


def _all(values: Iterable[object]) -> str:
    return ", ".join(map(repr, values))


def _listed(codes: Iterable[str]) -> str:
    """The first few, since nobody reads ninety."""
    ordered = sorted(codes)
    return ", ".join(ordered[:8]) + (f" … ({len(ordered)} in all)" if len(ordered) > 8 else "")
