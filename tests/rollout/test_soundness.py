"""`policy check`: what the model cannot tell apart, reach or read is named with its line."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from filter_service.cli import app
from filter_service.db import query_encoder
from filter_service.demo import POLICY as DEMO
from filter_service.encoder import Encoder, load_encoder
from filter_service.errors import InvalidPolicy, ModelUnavailable
from filter_service.policy import Policy, read_policy
from filter_service.rollout import soundness
from filter_service.scoring import LogitScale, policy_vectors

NEUTRAL = list(read_policy(DEMO).neutral[:20])
TEMPLATES = ["{}", "a picture of {}"]


@pytest.fixture(scope="module")
def bundled() -> Encoder:
    return load_encoder(device="cpu", precision="float32")


class Checked:
    """`policy check` of a policy with some fields changed: what it says on either stream."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, *classes: dict[str, Any], **fields: Any) -> tuple[list[str], list[str]]:
        """Faults and warnings, without the file's name."""
        known = {"name": "test", "templates": TEMPLATES, "neutral": NEUTRAL}
        named = [{"name": f"class-{i}", "threshold": 0.8} | c for i, c in enumerate(classes)]
        self.file.write_text(yaml.safe_dump(known | fields | {"classes": named}, sort_keys=False))
        result = CliRunner().invoke(app, ["policy", "check", str(self.file)])
        assert result.exception is None or isinstance(result.exception, InvalidPolicy | SystemExit)
        faults = str(result.exception or "").splitlines()
        warnings = [x.removeprefix("Warning: ") for x in result.stderr.splitlines()]
        assert bool(faults) == bool(result.exit_code)
        return [self._bare(x) for x in faults], [self._bare(x) for x in warnings]

    def _bare(self, line: str) -> str:
        return line.removeprefix(f"{self.file}:")


@pytest.fixture
def checked(bundled: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checked:
    monkeypatch.setattr(query_encoder, "load", lambda settings: bundled)
    return Checked(tmp_path / "policy.yaml")


def test_of_a_sound_policy_nothing_is_said(checked: Checked) -> None:
    assert checked({"prompts": ["a gun", "a knife"]}, {"prompts": ["beer"]}) == ([], [])


@pytest.mark.parametrize("written", ["a dog", "A  Dog", "dog"])
def test_a_class_that_is_not_told_from_a_neutral_prompt_is_a_fault(
    checked: Checked, written: str
) -> None:
    (fault,), _ = checked({"prompts": [written]})
    assert "classes[0].prompts: nothing tells class-0" in fault
    assert repr(written) in fault and "'a dog'" in fault


def test_one_such_prompt_of_several_is_a_warning(checked: Checked) -> None:
    faults, (warning,) = checked({"prompts": ["a gun", "dog"]})
    assert not faults
    assert "classes[0].prompts[1]: 'dog' is all but the neutral prompt 'a dog'" in warning


def test_a_threshold_that_no_image_reaches_is_a_fault(checked: Checked) -> None:
    flat = {"a": 0.01, "b": -3.0}  # at most sigmoid(0.01 * 31 - 3) = 0.06
    (fault,), _ = checked({"prompts": ["a gun"], "threshold": 0.5, "calibration": flat})
    assert "classes[0].threshold: no image can be flagged" in fault and "0.06" in fault


def test_a_threshold_that_every_image_reaches_is_a_fault(checked: Checked) -> None:
    flat = {"a": 0.01, "b": 3.0}
    (fault,), _ = checked({"prompts": ["a gun"], "threshold": 0.5, "calibration": flat})
    assert "classes[0].threshold: every image is flagged" in fault


def test_classes_whose_directions_coincide_are_named(checked: Checked) -> None:
    gun, bomb = {"prompts": ["a gun"]}, {"prompts": ["a bomb"]}
    _, warnings = checked(gun, bomb, {"prompts": ["gun"]})
    assert len(warnings) == 1
    assert "classes[2]: class-2 looks for what class-0 looks for" in warnings[0]


def test_what_is_said_twice_is_named(checked: Checked) -> None:
    guns = {"prompts": ["a gun", "a knife", "A gun"]}
    _, warnings = checked(guns, {"prompts": ["beer", "a knife"]}, neutral=[*NEUTRAL, "a  dog"])
    assert [w.split(": ", 1)[1] for w in warnings] == [
        "classes[0].prompts[2]: 'A gun' says what 'a gun' says already: leave one out.",
        "neutral[20]: 'a  dog' says what 'a dog' says already: leave one out.",
        "classes[1].prompts[1]: 'a knife' stands in class-0, too: an image of it is flagged for "
        "class-1 and for class-0.",
    ]


def test_a_prompt_that_the_model_does_not_read_to_its_end_is_named_with_its_tokens(
    checked: Checked,
) -> None:
    most = 24  # the bundled model's context, with a token for the beginning and one for the end
    fits = " ".join(["long"] * (most - 2 - len(["a", "picture", "of"])))
    _, warnings = checked({"prompts": ["a gun", fits, f"{fits} knife"]})
    assert len(warnings) == 1
    assert "classes[0].prompts[2]: " in warnings[0]
    assert f"has {most + 1} tokens, of which the model reads {most} only" in warnings[0]


def test_few_neutral_prompts_are_a_warning(checked: Checked) -> None:
    faults, (warning,) = checked({"prompts": ["a gun"]}, neutral=NEUTRAL[:15])
    assert not faults and "neutral: 15 neutral prompts hardly stand for" in warning


def test_few_neutral_prompts_are_named_with_what_they_cost_and_look_alikes_do_not_count(
    checked: Checked,
) -> None:
    guns = {"prompts": ["a gun"], "look_alikes": ["a guitar", "a trumpet"]}
    beer = {"prompts": ["beer"], "look_alikes": ["milk", "coffee"]}
    _, (warning,) = checked(guns, beer, neutral=NEUTRAL[:15])
    assert "15 neutral prompts" in warning and "three times the false flags of 32" in warning


def test_a_look_alike_that_is_a_prompt_to_the_model_is_named(checked: Checked) -> None:
    guns = {"prompts": ["a gun", "a knife"], "look_alikes": ["a guitar", "Gun"]}
    _, (warning,) = checked(guns)
    assert "classes[0].prompts[0]: 'a gun' is all but the look-alike 'Gun'" in warning


def test_a_class_whose_only_prompt_is_a_look_alike_is_a_fault(checked: Checked) -> None:
    (fault,), _ = checked({"prompts": ["a gun"], "look_alikes": ["gun"]})
    assert "nothing tells class-0 from what is ordinary: 'a gun' is all but the look-alike" in fault


def test_a_look_alike_said_twice_is_named_where_it_stands(checked: Checked) -> None:
    beer = {"prompts": ["beer"], "look_alikes": ["a guitar", "A guitar", "a  dog"]}
    _, warnings = checked({"prompts": ["a gun"]}, beer)
    assert [w.split(": ", 1)[1] for w in warnings] == [
        "classes[1].look_alikes[1]: 'A guitar' says what 'a guitar' says already: leave one out.",
        "classes[1].look_alikes[2]: 'a  dog' says what 'a dog' says already: leave one out.",
    ]


def test_a_look_alike_that_the_model_does_not_read_to_its_end_is_named(checked: Checked) -> None:
    _, (warning,) = checked({"prompts": ["a gun"], "look_alikes": [" ".join(["long"] * 30)]})
    assert "classes[0].look_alikes[0]: " in warning and "tokens" in warning


def test_a_model_that_contrasts_with_nothing_leaves_look_alikes_without_effect(
    bundled: Encoder,
) -> None:
    asked = {"name": "gun", "prompts": ["a gun"], "threshold": 0.5, "look_alikes": ["a guitar"]}
    policy = Policy.model_validate({"name": "test", "neutral": NEUTRAL, "classes": [asked]})
    logit_scale = LogitScale(10.0, sigmoid=True)
    (remark,) = soundness.model_remarks(
        policy, policy_vectors(policy, bundled.encode_texts, logit_scale)
    )
    assert remark.place == ("classes", 0, "look_alikes") and not remark.fatal
    assert "contrasts gun with nothing" in remark.sentence


def test_the_line_is_that_of_what_is_named(checked: Checked) -> None:
    _, (warning,) = checked({"prompts": ["a gun", "dog"]})
    line = int(warning.split(":")[0])
    assert checked.file.read_text().splitlines()[line - 1].strip() == "- dog"


def test_without_a_model_the_letters_are_compared(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(settings: object) -> None:
        raise ModelUnavailable("It cannot be downloaded.")

    monkeypatch.setattr(query_encoder, "load", fails)
    (fault,), (note,) = checked({"prompts": ["A dog"]})
    assert "nothing tells class-0" in fault and "It cannot be downloaded." in note


def test_the_policies_that_come_with_the_service_are_sound(
    bundled: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_encoder, "load", lambda settings: bundled)
    result = CliRunner().invoke(app, ["policy", "check", str(DEMO)])
    assert (result.exit_code, result.stderr) == (0, "")
