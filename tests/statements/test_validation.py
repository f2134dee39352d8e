"""The Transparency Database's rules: each is broken once, and each break is a sentence."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from filter_service.cli import app
from filter_service.statements import personal_data
from filter_service.statements.validation import check, check_file

SOUND: dict[str, Any] = {
    "puid": "76ea38a4-5782-5a29-8a45-2161d3a16f77",
    "decision_visibility": ["DECISION_VISIBILITY_CONTENT_REMOVED"],
    "decision_ground": "DECISION_GROUND_INCOMPATIBLE_CONTENT",
    "incompatible_content_ground": "Rules, section 4",
    "incompatible_content_explanation": "Weapons are not sold here.",
    "incompatible_content_illegal": "No",
    "decision_ground_reference_url": "https://marketplace.example/rules/7",
    "category": "STATEMENT_CATEGORY_VIOLENCE",
    "content_type": ["CONTENT_TYPE_IMAGE"],
    "content_date": "2026-11-20",
    "application_date": "2026-11-21",
    "decision_facts": "A computer program found the picture, and a person decided.",
    "source_type": "SOURCE_VOLUNTARY",
    "automated_detection": "Yes",
    "automated_decision": "AUTOMATED_DECISION_PARTIALLY",
}
ILLEGAL: dict[str, Any] = {
    **{k: v for k, v in SOUND.items() if not k.startswith("incompatible")},
    "decision_ground": "DECISION_GROUND_ILLEGAL_CONTENT",
    "illegal_content_legal_ground": "Weapons Act, section 42a",
    "illegal_content_explanation": "To offer it is an offence.",
}
FULL: dict[str, Any] = {
    **ILLEGAL,
    "puid": "a_B-9",
    "decision_visibility": ["DECISION_VISIBILITY_OTHER", "DECISION_VISIBILITY_CONTENT_DEMOTED"],
    "decision_visibility_other": "It is not found by a search.",
    "decision_monetary": "DECISION_MONETARY_OTHER",
    "decision_monetary_other": "No advertisement is shown beside it.",
    "decision_provision": "DECISION_PROVISION_TOTAL_TERMINATION",
    "decision_account": "DECISION_ACCOUNT_TERMINATED",
    "account_type": "ACCOUNT_TYPE_PRIVATE",
    "end_date_visibility_restriction": "2026-11-21",
    "end_date_monetary_restriction": "2027-11-21",
    "end_date_service_restriction": "2027-11-21",
    "end_date_account_restriction": "2038-01-01",
    "territorial_scope": ["DE", "IS", "NO", "LI"],
    "category_addition": ["STATEMENT_CATEGORY_RISK_FOR_PUBLIC_SECURITY"],
    "category_specification": ["KEYWORD_PROHIBITED_PRODUCTS", "KEYWORD_OTHER"],
    "category_specification_other": "knives",
    "content_type": ["CONTENT_TYPE_IMAGE", "CONTENT_TYPE_OTHER"],
    "content_type_other": "a moving picture",
    "content_language": "DE",
    "content_id": {"EAN-13": "4006381333931"},
    "source_type": "SOURCE_TRUSTED_FLAGGER",
    "source_identity": "a body for the protection of consumers",
}
OTHER = "DECISION_VISIBILITY_OTHER"
GONE = object()

# What is changed in a sound statement, and how the sentence begins that says what is wrong.
BREAKS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    *[
        (SOUND, {name: GONE}, f"{name} is missing: it is required.")
        for name in (
            *("puid", "decision_ground", "content_type", "category", "content_date"),
            *("application_date", "decision_facts", "source_type", "automated_detection"),
            "automated_decision",
        )
    ],
    (SOUND, {"decision_facts": ""}, "decision_facts is missing"),
    (SOUND, {"content_type": []}, "content_type is missing"),
    (SOUND, {"url": "https://a.example"}, "url is no field of the database"),
    (SOUND, {"categroy": ""}, "categroy is no field of the database, the nearest is category"),
    (SOUND, {"decision_visibility": GONE}, "Nothing is restricted: give one of"),
    *[
        (FULL, {name: "SOMETHING"}, f"{name} is 'SOMETHING': it has to be one of")
        for name in (
            *("decision_monetary", "decision_provision", "decision_account", "account_type"),
            *("decision_ground", "category", "content_language", "source_type"),
            *("automated_detection", "automated_decision"),
        )
    ],
    (SOUND, {"incompatible_content_illegal": "Maybe"}, "incompatible_content_illegal is 'Maybe'"),
    (SOUND, {"category": ["STATEMENT_CATEGORY_VIOLENCE"]}, "category is ["),
    (SOUND, {"category": "STATEMENT_CATEGORY_PIRACY"}, "category is 'STATEMENT_CATEGORY_PIRACY'"),
    (FULL, {"content_language": "de"}, "content_language is 'de'"),
    (SOUND, {"automated_detection": True}, "automated_detection is True"),
    *[
        (FULL, {name: ["SOMETHING"]}, f"{name} holds 'SOMETHING': it may hold")
        for name in (
            *("decision_visibility", "category_addition", "category_specification"),
            *("content_type", "territorial_scope"),
        )
    ],
    (SOUND, {"content_type": "CONTENT_TYPE_IMAGE"}, "content_type is 'CONTENT_TYPE_IMAGE': it has"),
    (FULL, {"territorial_scope": ["DE", "US"]}, "territorial_scope holds 'US'"),
    (FULL, {"territorial_scope": ["DE", "DE"]}, "territorial_scope holds 'DE' twice"),
    (SOUND, {"decision_visibility": [[]]}, "decision_visibility holds []"),
    *[
        (of, {name: "a" * (longest + 1)}, f"{name} has {longest + 1} letters: ")
        for of, name, longest in (
            (SOUND, "puid", 500),
            (FULL, "decision_visibility_other", 500),
            (FULL, "decision_monetary_other", 500),
            (FULL, "content_type_other", 500),
            (FULL, "category_specification_other", 500),
            (ILLEGAL, "illegal_content_legal_ground", 500),
            (ILLEGAL, "illegal_content_explanation", 2_000),
            (SOUND, "incompatible_content_ground", 500),
            (SOUND, "incompatible_content_explanation", 2_000),
            (SOUND, "decision_facts", 5_000),
            (FULL, "source_identity", 500),
        )
    ],
    (
        SOUND,
        {"decision_ground_reference_url": f"https://a.example/{'a' * 500}"},
        "decision_ground_reference_url has 518 letters",
    ),
    (SOUND, {"decision_facts": 5}, "decision_facts is 5: it has to be a text"),
    (SOUND, {"decision_visibility": [OTHER]}, "decision_visibility_other is missing"),
    (FULL, {"decision_monetary_other": GONE}, "decision_monetary_other is missing"),
    (FULL, {"content_type_other": GONE}, "content_type_other is missing"),
    (ILLEGAL, {"illegal_content_legal_ground": GONE}, "illegal_content_legal_ground is missing"),
    (ILLEGAL, {"illegal_content_explanation": GONE}, "illegal_content_explanation is missing"),
    (SOUND, {"incompatible_content_ground": GONE}, "incompatible_content_ground is missing"),
    (
        SOUND,
        {"incompatible_content_explanation": GONE},
        "incompatible_content_explanation is missing",
    ),
    *[
        (of, {name: "a"}, f"{name} is given, but ")
        for of, name in (
            (SOUND, "decision_visibility_other"),
            (SOUND, "decision_monetary_other"),
            (SOUND, "content_type_other"),
            (SOUND, "category_specification_other"),
            (SOUND, "illegal_content_legal_ground"),
            (SOUND, "illegal_content_explanation"),
            (ILLEGAL, "incompatible_content_ground"),
            (ILLEGAL, "incompatible_content_explanation"),
            (SOUND, "source_identity"),
        )
    ],
    (ILLEGAL, {"incompatible_content_illegal": "No"}, "incompatible_content_illegal is given, but"),
    *[
        (SOUND, {f"end_date_{name}_restriction": "2027-01-01"}, f"end_date_{name}_restriction is")
        for name in ("monetary", "service", "account")
    ],
    *[
        (FULL, {name: "2026-11-20"}, f"{name} is 2026-11-20, before the application_date")
        for name in FULL
        if name.startswith("end_date")
    ],
    *[
        (FULL, {name: wrong}, f"{name} is {wrong!r}: it has to be a day")
        for name in ("content_date", "application_date", "end_date_visibility_restriction")
        for wrong in ("21.11.2026", "2026-11-31", "2026-11-21-00", "20261121", 20261121)
    ],
    (SOUND, {"content_date": "1999-12-31"}, "content_date is 1999-12-31: it has to lie between"),
    (SOUND, {"content_date": "2038-01-02"}, "content_date is 2038-01-02"),
    (SOUND, {"application_date": "2019-12-31"}, "application_date is 2019-12-31"),
    (SOUND, {"application_date": "2038-01-02"}, "application_date is 2038-01-02"),
    (FULL, {"end_date_service_restriction": "2038-01-02"}, "end_date_service_restriction is 2038"),
    *[
        (SOUND, {"puid": wrong}, f"puid is {wrong!r}: only letters")
        for wrong in ("with blank", "a.b", "ä", "a\n", "a/b")
    ],
    *[
        (SOUND, {"decision_ground_reference_url": wrong}, "decision_ground_reference_url is ")
        for wrong in ("rules", "ftp://a.example", "https://", "https://a b.example", "http://[")
    ],
    (FULL, {"content_id": {"EAN-13": "123"}}, "content_id is "),
    (FULL, {"content_id": {"ISBN": "4006381333931"}}, "content_id is "),
    (FULL, {"content_id": "4006381333931"}, "content_id is "),
    *[
        (of, {name: "Write to anna@example.org"}, f"{name} holds an e-mail address")
        for of, name in (
            (SOUND, "decision_facts"),
            (SOUND, "incompatible_content_ground"),
            (SOUND, "incompatible_content_explanation"),
            (ILLEGAL, "illegal_content_explanation"),
            (FULL, "decision_visibility_other"),
            (FULL, "source_identity"),
        )
    ],
]


def changed(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    new = deepcopy(document) | changes
    return {name: value for name, value in new.items() if value is not GONE}


@pytest.mark.parametrize("document", [SOUND, ILLEGAL, FULL], ids=["sound", "illegal", "full"])
def test_a_sound_statement_breaks_no_rule(document: dict[str, Any]) -> None:
    assert check(document) == []


def test_what_is_null_counts_as_left_out() -> None:
    assert check({**SOUND, "end_date_account_restriction": None, "territorial_scope": None}) == []


@pytest.mark.parametrize(
    ("document", "changes", "said"), BREAKS, ids=[f"{b[2][:40]} {n}" for n, b in enumerate(BREAKS)]
)
def test_every_broken_rule_is_said(
    document: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    found = check(changed(document, changes))
    assert any(sentence.startswith(said) for sentence in found), found


@pytest.mark.parametrize("document", [None, [], "text", 5])
def test_what_is_no_object_is_no_statement(document: object) -> None:
    assert len(check(document)) == 1


def many(count: int) -> list[dict[str, Any]]:
    return [{**SOUND, "puid": f"number-{n}"} for n in range(count)]


@pytest.mark.parametrize("count", [1, 100])
def test_a_file_holds_up_to_a_hundred(count: int) -> None:
    assert check_file({"statements": many(count)}) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"statements": []}, "A file holds 0 statements: 1 to 100"),
        ({"statements": many(101)}, "A file holds 101 statements: 1 to 100"),
        ({"statements": many(2) + many(1)}, "The puid 'number-0' stands there more than once"),
        ({"statements": [SOUND, 5]}, "Statement 2: A statement is an object"),
        ({"statements": [SOUND, {**FULL, "puid": "a b"}]}, "Statement 2: puid is 'a b'"),
        ({"statements": SOUND}, "A file of statements is an object"),
        ([SOUND], "A file of statements is an object"),
    ],
)
def test_every_fault_of_a_file_is_said(content: object, said: str) -> None:
    found = check_file(content)
    assert any(sentence.startswith(said) for sentence in found), found


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("write to a.b+c@mail.example.org now", "an e-mail address"),
        ("call +49 30 1234567", "a telephone number"),
        ("call 030/123 45 67", "a telephone number"),
        ("call (030) 12345678", "a telephone number"),
        ("call 555-123-4567", "a telephone number"),
        ("posted by @anna_m", "a handle"),
        ("see https://shop.example/users/anna", "an address that names somebody"),
        ("see https://shop.example/~anna", "an address that names somebody"),
        ("see https://anna@shop.example/a", "an address that names somebody"),
        ("paid from DE89 3704 0044 0532 0130 00", "an account number"),
        ("paid from GB82WEST12345698765432", "an account number"),
        ("sent from 192.168.1.20", "an IP address"),
        ("sent from 2001:db8::1", "an IP address"),
        ("number 123-45-6789", "a number that names somebody"),
        ("number 12345678901", "a number that names somebody"),
        ("passport C01X00T47", "a number that names somebody"),
        ("paid to IBAN GB82 WEST 1234 5698 7654 32", "an account number"),
        ("paid by 4111 1111 1111 1111", "a card number"),
        ("paid by CARD 378282 246310 005 ON", "a card number"),
        ("born as 85.07.30-033.28", "a number that names somebody"),
        ("born as 2 95 10 99 126 111 93", "a number that names somebody"),
        ("born as 131052-308T", "a number that names somebody"),
        ("born as RSS MRA 85T10 A562S", "a number that names somebody"),
        ("born as 710319/2745", "a number that names somebody"),
        ("in section 7 that of 811228-9874", "a number that names somebody"),
        ("NIF 12345678Z", "a number that names somebody"),
        ("call 912 34 56 78", "a telephone number"),
        ("call 22 12 34 56", "a telephone number"),
        ("call 601 123 456", "a telephone number"),
    ],
)
def test_personal_data_is_found(text: str, what: str) -> None:
    assert [f.split(" (")[0] for f in personal_data.find_personal_data(text)] == [what]


@pytest.mark.parametrize(
    "text",
    [
        "On 2026-11-21 the picture was far above the limit: 99.9 of 100, where the limit is 78.6.",
        "The version of the rules that was applied: house-123456789012.",
        "Rules, section 4.1.2, https://marketplace.example/rules/7",
        "Weapons Act (Waffengesetz), section 42a (1) no. 3, in force since 2003",
        "At 12:30, in 1,234 of 5,000 pictures: 2 were wrong; Regulation (EU) 2022/2065.",
        "The order DE89370400440532013001 has the check digits of no account.",
        "NIF 12345678A, 811228-9875 and 710319/2746 have the check digits of nobody.",
        "The card 4111 1111 1111 1112 is none, and ISBN 978-3-16-148410-0 is a book.",
        "On 21.11.2026 there were 10 000 000 pictures, in sections 12-13 and 2000-2010.",
        "Directive 2001/29/EC, BGBl. I Nr. 137/1975, ECLI:EU:C:2014:317, EN 71-3:2019.",
    ],
)
def test_ordinary_sentences_name_nobody(text: str) -> None:
    assert list(personal_data.find_personal_data(text)) == []


def test_names_are_found_unless_they_are_words_of_ours() -> None:
    text = "The picture beer-with-anna shows a beer; Ben Meier decided."
    names = ("beer-with-anna", "beer", "ben", "Ben Meier", "picture", "al", "")
    found = list(personal_data.named(text, names, "The picture shows beer."))
    assert sorted(found) == ["a name (beer with anna)", "a name (ben meier)", "a name (ben)"]


def test_a_users_own_words_are_found() -> None:
    theirs = "This is my grandfather's old hunting rifle, which hangs in our museum."
    assert list(
        personal_data.quoted("It shows an old hunting rifle which hangs there.", theirs, "")
    )
    assert not list(personal_data.quoted("It shows an old hunting rifle.", theirs, ""))


def test_the_command_names_every_fault(tmp_path: Path) -> None:
    file = tmp_path / "statements.json"
    file.write_text(json.dumps({"statements": [SOUND, {**SOUND, "category": "x"}]}))
    done = CliRunner().invoke(app, ["statements", "check", str(file)])
    assert done.exit_code == 1
    assert "Statement 2: category is 'x'" in done.stderr
    assert "more than once" in done.stderr
    file.write_text(json.dumps(FULL))
    assert CliRunner().invoke(app, ["statements", "check", str(file)]).exit_code == 0
