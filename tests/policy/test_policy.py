"""Policies: what a file may say, and how its faults are named."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from filter_service.demo import POLICY as DEMO
from filter_service.errors import InvalidPolicy
from filter_service.policy import Policy, json_schema, parse_policy, read_policy
from filter_service.rollout import soundness

ROOM = Path(__file__).parents[2] / "filter_service" / "policy" / "starter"
PHOTOGRAPHS, SCHEMA = ROOM / "photographs.yaml", ROOM / "policy.schema.json"
SOUND = """\
name: test
neutral:
  - a wall
classes:
  - name: weapons
    prompts:
      - a gun
    threshold: 0.9
"""


def changed(**fields: Any) -> str:
    """The sound policy with some fields of its class changed; None removes one."""
    document = yaml.safe_load(SOUND)
    document["classes"][0] |= fields
    document["classes"][0] = {k: v for k, v in document["classes"][0].items() if v is not None}
    return yaml.safe_dump(document, sort_keys=False)


def test_a_sound_policy_is_read() -> None:
    policy = parse_policy(SOUND)
    assert policy.on_failure == "hold"
    assert policy.templates_of(policy.classes[0]) == ("{}",)
    assert policy.neutral_of(policy.classes[0]) == ("a wall",)


@pytest.mark.parametrize(
    ("text", "line", "field"),
    [
        (SOUND.replace("0.9", "1.5"), 8, "classes[0].threshold"),
        (SOUND.replace("0.9", "high"), 8, "classes[0].threshold"),
        (SOUND.replace("      - a gun\n", "      - ''\n"), 7, "classes[0].prompts[0]"),
        (SOUND.replace("    prompts:\n      - a gun\n", ""), 5, "classes[0].prompts"),
        (SOUND.replace("name: weapons", "name: Weapons!"), 5, "classes[0].name"),
        (SOUND.replace("threshold", "treshold"), 8, "classes[0].treshold"),
        (SOUND.replace("neutral:\n  - a wall\n", ""), 1, "neutral"),
        (SOUND + "templates: ['a photo']\n", 9, "templates[0]"),
        (SOUND + "templates: ['{} and {}']\n", 9, "templates[0]"),
        (SOUND.replace("0.9", ".nan"), 8, "classes[0].threshold"),
        (SOUND + "    calibration: {a: .inf, b: 0}\n", 9, "classes[0].calibration.a"),
        (SOUND + "on_failure: ignore\n", 9, "on_failure"),
        (SOUND + "    certain: 1\n", 9, "classes[0].certain"),
    ],
)
def test_a_fault_is_named_by_file_line_and_field(text: str, line: int, field: str) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        parse_policy(text, source="my.yaml")
    faults = str(caught.value).splitlines()
    assert any(fault.startswith(f"my.yaml:{line}: {field}: ") for fault in faults)


def test_all_faults_are_named_at_once() -> None:
    text = SOUND.replace("0.9", "2").replace("name: test", "name: no name")
    with pytest.raises(InvalidPolicy) as caught:
        parse_policy(text)
    assert len(str(caught.value).splitlines()) == 2


def test_two_classes_of_one_name_are_refused() -> None:
    document = yaml.safe_load(SOUND)
    document["classes"] *= 2
    with pytest.raises(InvalidPolicy, match="two classes are called weapons"):
        parse_policy(yaml.safe_dump(document))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a policy is a mapping"),
        ("- a\n- b\n", "a policy is a mapping"),
        ("name: [unclosed\n", "not YAML"),
        ("name: a\n\tneutral: b\n", "not YAML"),
        (SOUND + "name: other\n", "policy:9: not YAML .name stands there twice"),
        (SOUND.replace("a wall", "2024-13-45"), "policy:3: not YAML .no timestamp"),
        (SOUND + "more: !!float abc\n", "policy:9: not YAML .no float"),
        ("name: \x01\n", "policy:1: not YAML"),
        ("[" * 3000, "policy:1: nested too deeply"),
    ],
)
def test_what_is_no_policy_at_all_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidPolicy, match=said):
        parse_policy(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidPolicy, match=r"none\.yaml: cannot be read"):
        read_policy(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    with pytest.raises(InvalidPolicy, match=r"latin\.yaml: cannot be read"):
        read_policy(tmp_path / "latin.yaml")


def test_the_digest_is_of_the_content_and_not_of_its_spelling() -> None:
    one = parse_policy(SOUND)
    other = parse_policy("# a comment\n" + json.dumps(yaml.safe_load(SOUND)))
    assert one.digest == other.digest
    assert len(one.digest) == 64


@pytest.mark.parametrize(
    "fields",
    [{"threshold": 0.8}, {"prompts": ["a rifle"]}, {"severity": "high"}, {"clause": "None."}],
    ids=", ".join,
)
def test_every_change_changes_the_digest(fields: dict[str, Any]) -> None:
    assert parse_policy(changed(**fields)).digest != parse_policy(SOUND).digest


def test_a_changed_copy_has_its_own_digest() -> None:
    policy = parse_policy(SOUND)
    first = policy.digest
    copied = policy.model_copy(update={"name": "other"})
    assert copied.digest != first == policy.digest
    assert copied.digest == parse_policy(SOUND.replace("name: test", "name: other")).digest


def test_a_class_may_have_its_own_templates_and_neutral_prompts() -> None:
    text = changed(templates=["a photo of {}"], neutral=["a field"])
    policy = parse_policy(text)
    assert policy.templates_of(policy.classes[0]) == ("a photo of {}",)
    assert policy.neutral_of(policy.classes[0]) == ("a field",)


def test_look_alikes_are_added_to_whichever_neutral_prompts_hold() -> None:
    for own, ordinary in ((None, ("a wall",)), (["a field"], ("a field",))):
        policy = parse_policy(changed(neutral=own, look_alikes=["a toy gun"]))
        assert policy.ordinary_of(policy.classes[0]) == ordinary
        assert policy.neutral_of(policy.classes[0]) == (*ordinary, "a toy gun")


def test_only_a_flag_can_act_by_itself() -> None:
    assert parse_policy(changed(certain=0.9)).classes[0].certain == 0.9
    with pytest.raises(InvalidPolicy, match=r"certain is 0\.8, and the threshold is 0\.9"):
        parse_policy(changed(certain=0.8))
    with pytest.raises(InvalidPolicy, match="leave certain out, or sealed"):
        parse_policy(changed(certain=0.95, sealed={"days": 90}))


def test_a_policy_of_before_look_alikes_keeps_its_digest() -> None:
    digest = "908fbf8fbad812f2f1028f312e6341ff14bc4f7e18206f17bf2df3b27e05a74f"
    assert parse_policy(SOUND).digest == digest
    assert parse_policy(changed(look_alikes=["a toy gun"])).digest != digest
    assert parse_policy(changed(certain=0.95)).digest != digest


def test_a_policy_survives_its_journey_through_json() -> None:
    policy = read_policy(PHOTOGRAPHS)
    assert Policy.model_validate_json(policy.model_dump_json()).digest == policy.digest


def test_the_published_schema_is_that_of_the_code() -> None:
    """If not: `filter-service policy schema > filter_service/policy/starter/policy.schema.json`."""
    assert json.loads(SCHEMA.read_text()) == json_schema()


@pytest.mark.parametrize("file", [DEMO, PHOTOGRAPHS], ids=lambda f: f.name)
def test_the_policies_that_ship_keep_the_schema(file: Path) -> None:
    jsonschema.validate(yaml.safe_load(file.read_text()), json.loads(SCHEMA.read_text()))
    read_policy(file)


@pytest.mark.parametrize(
    "text", [changed(threshold=2), changed(prompts=None), changed(extra=1), changed(severity="x")]
)
def test_the_schema_refuses_what_the_service_refuses(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), json_schema())
    with pytest.raises(InvalidPolicy):
        parse_policy(text)


def test_the_starter_policy_asks_enough_and_says_that_it_is_uncalibrated() -> None:
    policy = read_policy(PHOTOGRAPHS)
    names = {c.name for c in policy.classes}
    assert names == {"weapons", "tobacco", "alcohol", "drugs", "gambling", "gore"}
    assert len(policy.neutral) >= 30
    assert all(len(c.prompts) >= 3 and c.clause and c.calibration is None for c in policy.classes)
    assert all(len(c.look_alikes or ()) >= 5 for c in policy.classes)
    assert "UNCALIBRATED" in PHOTOGRAPHS.read_text()
    thresholds = [x for x in PHOTOGRAPHS.read_text().splitlines() if "threshold:" in x]
    assert all(x.endswith("# a queue, not a probability") for x in thresholds)


def test_the_starter_policy_says_nothing_twice() -> None:
    policy = read_policy(PHOTOGRAPHS)
    assert not list(soundness.remarks(policy, soundness.by_text(policy)))


def test_an_unknown_field_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(InvalidPolicy) as error:
        parse_policy(changed(treshold=0.5), source="p.yaml")
    assert "classes[0].treshold: 'treshold' is no field here; the nearest is 'threshold'" in str(
        error.value
    )
