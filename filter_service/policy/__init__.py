"""Policies: immutable versions named by their digest, read from YAML and validated."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from filter_service.canonical import canonical, text_digest
from filter_service.errors import InvalidPolicy
from filter_service.policy.coverage import Coverage
from filter_service.policy.learnt_head import LearntHead
from filter_service.policy.policy_yaml import PolicyLoader, fault_of, field_path, follows, line_of
from filter_service.policy.statement_grounds import Ground
from filter_service.policy.statement_mapping import LONGEST_GROUND, ClassStatement, Notices
from filter_service.policy.strict import Name, Sha256, Storable, Strict, Text


def _one_slot(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError("a template holds {} exactly once, where the prompt goes")
    return template


Template = Annotated[Text, AfterValidator(_one_slot)]


OTHER_WORDS = "other prompts, templates, neutral prompts or look-alikes: leave it out"


class Severity(StrEnum):
    """How urgent a flag of this class is; the queue is ordered by it."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class CalibrationOrigin(Strict):
    """What a calibration was fitted on, and for: it means nothing for anything else."""

    LATER: ClassVar[frozenset[str]] = frozenset({"head", "common"})

    encoder: Sha256 = Field(description="Fingerprint of the encoder whose margins they were.")
    wording: Sha256 = Field(description="Digest of the prompts that the margins were for.")
    head: Sha256 | None = Field(
        None, description="Digest of the head that was part of the margins; empty: there was none."
    )
    reviews: int = Field(ge=1, description="Labels that it was fitted on.")
    until: date = Field(description="The day of the newest of them.")
    covariance: tuple[float, float, float] = Field(
        description="Of slope and offset: variance of a, covariance, variance of b."
    )
    common: tuple[float, float] | None = Field(
        None, description="Slope and offset of all classes together, which it leans on."
    )


class Calibration(Strict):
    """Turns a margin into a probability: sigmoid(a * margin + b)."""

    LATER: ClassVar[frozenset[str]] = frozenset({"origin"})

    a: float = Field(gt=0, description="Slope.")
    b: float = Field(description="Offset, logits.")
    origin: CalibrationOrigin | None = Field(
        None, description="Written by policy calibrate; empty: somebody chose a and b."
    )

    @property
    def digest(self) -> str:
        """SHA-256 over all of it, hex: the labels that it was fitted on are kept by it."""
        return text_digest(canonical(self.model_dump(mode="json")))


class Preservation(Strict):
    """How long the images of a sealed class are kept, which nobody may look at meanwhile."""

    days: int = Field(ge=1, le=36_500, description="From the verdict on; then they are deleted.")


class ForbiddenClass(Strict):
    """One thing the policy forbids: any of its prompts counts."""

    LATER: ClassVar[frozenset[str]] = frozenset(
        {"sealed", "statement", "look_alikes", "head", "certain"}
    )

    name: Name = Field(description="Lower case, digits, - and _; at most 64.")
    prompts: tuple[Text, ...] = Field(
        min_length=1,
        max_length=100,
        description="Short noun phrases, any of which counts; they go into the templates' {}.",
    )
    threshold: float = Field(gt=0, lt=1, description="Probability at which an image is flagged.")
    certain: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Probability from which on a flag acts by itself, before any person has looked "
        "at it; empty: a person decides about every flag.",
    )
    severity: Severity = Field(Severity.MEDIUM, description="How urgent a flag of this class is.")
    clause: Storable = Field(
        "", description="The sentence of the platform's rules, shown to people."
    )
    templates: tuple[Template, ...] | None = Field(
        None, min_length=1, description="Instead of the policy's."
    )
    neutral: tuple[Text, ...] | None = Field(
        None, min_length=1, description="Instead of the policy's."
    )
    look_alikes: tuple[Text, ...] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Harmless things that resemble this class: neutral prompts of its own, added "
        "to those that hold for it.",
    )
    calibration: Calibration | None = Field(
        None, description="Fitted on reviewed data; without it records say 'uncalibrated'."
    )
    head: LearntHead | None = Field(
        None, description="What reviews taught beside the prompts; written by head fit."
    )
    sealed: Preservation | None = Field(
        None,
        description="What must be preserved and never shown: no explanation, no neighbours, no "
        "pictures; only custodians know of it.",
    )
    statement: ClassStatement | None = Field(
        None, description="What users are told when a picture is restricted for this class."
    )

    @model_validator(mode="after")
    def _can_act(self) -> Self:
        if self.certain is None:
            return self
        if self.certain < self.threshold:
            raise ValueError(
                f"certain is {self.certain:g}, and the threshold is {self.threshold:g}: only a "
                "flag can act by itself, so give the threshold or more, a probability like it"
            )
        if self.sealed is not None:
            raise ValueError(
                "what is sealed waits for nobody's decision anyway: leave certain out, or sealed"
            )
        return self

    @model_validator(mode="after")
    def _can_be_stated(self) -> Self:
        if self.statement is None:
            return self
        if self.sealed is not None:
            raise ValueError("what is sealed is never told of: leave statement out, or sealed")
        if self.statement.ground is Ground.INCOMPATIBLE_CONTENT and not self.clause.strip():
            raise ValueError("what is against your rules needs the clause that says so: give one")
        if len(self.clause) > LONGEST_GROUND:
            raise ValueError(
                f"the clause has {len(self.clause)} letters, a statement quotes {LONGEST_GROUND} "
                "at most: shorten it"
            )
        return self


class Policy(Strict):
    """What a platform forbids, and how to ask a model about it."""

    LATER: ClassVar[frozenset[str]] = frozenset({"notices", "coverage", "partial"})

    name: Name = Field(description="Lower case, digits, - and _; at most 64.")
    on_failure: Literal["hold", "release"] = Field(
        "hold", description="What the platform should do with an item that could not be judged."
    )
    templates: tuple[Template, ...] = Field(
        ("{}",), min_length=1, description="Sentences around a prompt, such as 'a photo of {}'."
    )
    neutral: tuple[Text, ...] = Field(
        min_length=1, description="What the prompts are contrasted with: ordinary content."
    )
    classes: tuple[ForbiddenClass, ...] = Field(
        min_length=1, max_length=100, description="What is forbidden."
    )
    notices: Notices | None = Field(
        None,
        description="What users are told whose pictures are restricted; empty: this service sends "
        "no statements of reasons.",
    )

    coverage: Coverage | None = Field(
        None,
        description="How much of an image is looked at: whole, or model, which is what the model's "
        "own preprocessing leaves of it; empty: as FILTER_SERVICE_COVERAGE says.",
    )
    partial: Literal["clear", "undetermined"] | None = Field(
        None,
        description="What an image is of which only a part was seen, and nothing forbidden in it; "
        "empty: undetermined, but clear where coverage is model.",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [c.name for c in self.classes]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"two classes are called {', '.join(twice)}; each needs its own name")
        return self

    @model_validator(mode="after")
    def _what_was_learnt_belongs(self) -> Self:
        for c in self.classes:
            if c.head and c.head.wording != self.wording(c):
                raise ValueError(
                    f"the head of {c.name} was learnt for {OTHER_WORDS}, and fit it again"
                )
            origin = c.calibration and c.calibration.origin
            if origin and origin.wording != self.wording(c):
                raise ValueError(
                    f"the calibration of {c.name} was fitted for {OTHER_WORDS}, and calibrate again"
                )
            if origin and origin.head != (c.head and c.head.digest):
                raise ValueError(
                    f"the calibration of {c.name} was fitted on margins with another head, or with "
                    "none where there is one now: leave it out, and calibrate again"
                )
        return self

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the canonical content: two policies that read the same are the same."""
        return text_digest(canonical(self.model_dump(mode="json")))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other fields has another digest."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("digest", None)  # pydantic copies what was cached, too
        return copied

    def takes_partial(self, coverage: Coverage) -> bool:
        """Whether an image may be clear of which only a part was seen.

        Unless that is said: where somebody chose to look at the model's square alone, since they
        did; else not, since a whole look was meant, and was not had.
        """
        chosen = coverage is Coverage.MODEL
        return chosen if self.partial is None else self.partial == "clear"

    def forbidden(self, name: str) -> ForbiddenClass:
        """The class of this name; KeyError when the policy has none."""
        for c in self.classes:
            if c.name == name:
                return c
        raise KeyError(name)

    def templates_of(self, forbidden: ForbiddenClass) -> tuple[str, ...]:
        return forbidden.templates or self.templates

    def wording(self, forbidden: ForbiddenClass) -> str:
        """SHA-256 over all words that a class's margin depends on, hex."""
        words = (forbidden.prompts, self.templates_of(forbidden), self.neutral_of(forbidden))
        return text_digest(canonical([list(w) for w in words]))

    def ordinary_of(self, forbidden: ForbiddenClass) -> tuple[str, ...]:
        """The neutral prompts that hold for a class: its own, or the policy's."""
        return forbidden.neutral or self.neutral

    def neutral_of(self, forbidden: ForbiddenClass) -> tuple[str, ...]:
        """All that a class is contrasted with: what is ordinary, then its look-alikes."""
        return self.ordinary_of(forbidden) + (forbidden.look_alikes or ())


def read_policy(path: Path) -> Policy:
    """Read a policy file; InvalidPolicy names file, line and field of everything that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPolicy(f"{path}: cannot be read ({error}); give a YAML file.") from error
    return parse_policy(text, source=str(path))


def parse_policy(text: str, source: str = "policy") -> Policy:
    """Parse a policy from YAML text; `source` stands in the messages."""
    try:
        document = yaml.load(text, Loader=PolicyLoader)
        tree = yaml.compose(text, Loader=PolicyLoader)
    except yaml.YAMLError as error:
        line, problem = fault_of(error, text)
        raise InvalidPolicy(f"{source}:{line}: not YAML ({problem}).") from error
    except RecursionError as error:
        raise InvalidPolicy(f"{source}:1: nested too deeply to be a policy.") from error
    if not isinstance(document, dict):
        raise InvalidPolicy(f"{source}:1: a policy is a mapping with name, neutral and classes.")
    read = validated(document)
    if isinstance(read, Policy):
        return read
    raise InvalidPolicy(
        "\n".join(
            f"{source}:{line_of(tree, fault.place)}: {field_path(fault.place)}: {fault.sentence}"
            for fault in read
        )
    )


@dataclass(frozen=True, slots=True)
class PolicyFault:
    """What is wrong with one part of a policy."""

    place: tuple[int | str, ...]  # such as ("classes", 0, "threshold")
    sentence: str


def validated(document: Mapping[str, Any]) -> Policy | list[PolicyFault]:
    """The policy that a mapping is, or everything that is wrong with it."""
    try:
        return Policy.model_validate(document)
    except ValidationError as error:
        faults = error.errors()
        return [PolicyFault(e["loc"], e["msg"]) for e in faults if not follows(e, faults)]


def place_of(text: str, location: tuple[int | str, ...]) -> str:
    """Line and field of a part of a policy that was parsed from this text."""
    return f"{line_of(yaml.compose(text, Loader=PolicyLoader), location)}: {field_path(location)}"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a policy file, for editors that complete and check while typing."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:filter-service:policy",
        **Policy.model_json_schema(),
        "title": "filter_service policy",
    }
