"""The editor's form: what is typed becomes a document, and what a document says is found again."""

from pathlib import Path

import pytest

from filter_service import policy
from filter_service.demo import POLICY
from filter_service.errors import InvalidRequest
from filter_service.policy import Policy, read_policy
from filter_service.web.console.policy_form import MOST_CLASSES, PolicyForm
from tests.support.policy_forms import sent_fields
from tests.support.statements import policy as stated

STARTER = Path(policy.__file__).parent / "starter" / "photographs.yaml"
DEMO = read_policy(POLICY)
TWO_LINES = DEMO.model_copy(
    update={"classes": (DEMO.classes[0].model_copy(update={"clause": "No guns.\nNo knives."}),)}
)
FOUND = (DEMO, read_policy(STARTER), stated(), TWO_LINES)


@pytest.mark.parametrize("version", FOUND, ids=["demo", "starter", "stated", "two lines"])
def test_what_a_form_was_filled_from_comes_back_as_the_same_version(version: Policy) -> None:
    document = PolicyForm.sent(sent_fields(version)).document()
    assert Policy.model_validate(document).digest == version.digest


def test_a_place_is_the_field_and_the_line_where_it_is_typed() -> None:
    fields = sent_fields(FOUND[0]) | {"c3-prompts": "a gun\r\n\r\n  a knife\r\n", "c3-name": "x"}
    form = PolicyForm.sent(fields).without_class(1)
    number = [c.number for c in form.classes].index(3)
    assert form.field_of(("classes", number, "prompts", 1)) == ("c3-prompts", "line 3")
    assert form.field_of(("classes", number, "statement", "days")) == ("c3-rest", "statement.days")
    assert form.field_of(("classes", number)) == ("c3-name", "")
    assert form.field_of(("classes",)) == ("rest", "classes")
    assert form.field_of(("neutral", 0)) == ("neutral", "line 1")
    assert form.field_of(()) == ("rest", "")


def test_numbers_of_classes_are_never_given_twice() -> None:
    form = PolicyForm.empty().with_class().without_class(0).with_class()
    assert [c.number for c in form.classes] == [1, 2]


def test_a_form_of_more_classes_than_a_policy_has_is_read_no_further() -> None:
    fields = {f"c{n}-name": "x" for n in range(999)}
    assert len(PolicyForm.sent(fields).classes) == MOST_CLASSES + 1


@pytest.mark.parametrize("base", ["[", "[1]", '{"classes": 3}', '{"classes": [{}]}', "[" * 90_000])
def test_what_was_not_to_be_changed_is_refused_in_a_sentence(base: str) -> None:
    with pytest.raises(InvalidRequest, match="open the editor again"):
        PolicyForm.sent({"base": base})
