"""Checks a policy that somebody writes: its own validation, and what `policy check` says."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi import Request

from filter_service.errors import FilterServiceError
from filter_service.policy import Policy
from filter_service.rollout import soundness
from filter_service.rollout.edited_version import EditedVersion, edited
from filter_service.rollout.soundness import Remark
from filter_service.web.console.model_warmup import warming
from filter_service.web.console.policy_form import REST, PolicyForm
from filter_service.web.http.service import Service

LOADING = "the model is still being loaded; look again in a few seconds"
LETTERS = "Words were compared by their letters only, since no model could be asked"


@dataclass(frozen=True, slots=True)
class FieldRemark:
    """A sentence about a field; fatal: it cannot work as written."""

    sentence: str
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class CheckedForm:
    """A form with what is to be said of it."""

    form: PolicyForm
    policy: Policy | None = None  # None: it is no policy yet
    said: Mapping[str, list[FieldRemark]] = field(default_factory=dict)  # by field
    note: str = ""  # why not all could be checked


def checked(here: Service, request: Request, form: PolicyForm, patience: float) -> CheckedForm:
    """Everything that can be said of a form; waits so many seconds for the model at most."""
    version = edited(form.document(), form.base, [c.was for c in form.classes])
    said: defaultdict[str, list[FieldRemark]] = defaultdict(list)
    for fault in version.faults:
        _say(said, form, fault.place, fault.sentence, fatal=True)
    _say_left_out(said, form, version)
    if version.policy is None:
        return CheckedForm(form, None, dict(said))
    remarks, note = checked_words(here, request, version.policy, patience)
    for remark in remarks:
        _say(said, form, remark.place, remark.sentence, fatal=remark.fatal)
    return CheckedForm(form, version.policy, dict(said), note)


def checked_words(
    here: Service, request: Request, policy: Policy, patience: float
) -> tuple[list[Remark], str]:
    """What `policy check` says, and why it cannot say all."""
    try:
        if not warming(request, here).ready(patience):
            return list(soundness.by_letters(policy)), f"{LETTERS}: {LOADING}."
        found = here.seeker.words(policy)
    except FilterServiceError as error:
        return list(soundness.by_letters(policy)), f"{LETTERS}: {error}"
    return list(soundness.by_words(policy, found.vectors, found.tokenizer)), ""


def _say(
    said: defaultdict[str, list[FieldRemark]],
    form: PolicyForm,
    place: tuple[int | str, ...],
    sentence: str,
    *,
    fatal: bool,
) -> None:
    name, where = form.field_of(place)
    text = f"{where}: {sentence}" if where else sentence
    said[name].append(FieldRemark(f"{text[:1].upper()}{text[1:].removesuffix('.')}.", fatal))


def _say_left_out(
    said: defaultdict[str, list[FieldRemark]], form: PolicyForm, version: EditedVersion
) -> None:
    for number in version.left_out:
        said[form.classes[number].prefix + REST].append(
            FieldRemark(
                "What was learnt from reviews is left out, since it was for other words: a "
                "threshold is the probability of the uncalibrated margin now. Calibrate again."
            )
        )
