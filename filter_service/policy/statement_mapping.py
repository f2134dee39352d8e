"""The part of a policy on statements of reasons: for each class, and for all notices."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema, model_validator

from filter_service.policy.statement_grounds import (
    EEA,
    EU,
    EVERY_KEYWORD,
    KEYWORDS,
    Account,
    Category,
    Ground,
    Monetary,
    NoticeSource,
    Provision,
    Visibility,
)
from filter_service.policy.strict import Storable, Strict, Text

LONGEST_GROUND = 500  # letters; the database takes no more
LONGEST_EXPLANATION = 2_000
SIX_MONTHS = 184  # days: as long as six months can be
Language = Literal["en", "de"]  # each has its folder of templates

Short = Annotated[
    Storable,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_GROUND),
]
Long = Annotated[
    Storable,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_EXPLANATION),
]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s@]+$", max_length=500)]
Contact = Annotated[str, StringConstraints(pattern=r"^(https?://|mailto:)\S+$", max_length=500)]


def _known_keyword(word: str) -> str:
    if word not in EVERY_KEYWORD:
        raise ValueError(f"{word!r} is no keyword: use one of {', '.join(EVERY_KEYWORD)}")
    return word


def _known_country(code: str) -> str:
    if code not in EEA:
        raise ValueError(f"{code!r} is no country of the EEA: use one of {', '.join(EEA)}")
    return code


Keyword = Annotated[
    str, AfterValidator(_known_keyword), WithJsonSchema({"type": "string", "enum": EVERY_KEYWORD})
]
Country = Annotated[
    str, AfterValidator(_known_country), WithJsonSchema({"type": "string", "enum": list(EEA)})
]


class ClassStatement(Strict):
    """What a statement of reasons says when a picture is restricted for a class."""

    category: Category = Field(description="What kind of infringement it is.")
    additions: tuple[Category, ...] = Field((), description="Further categories.")
    keywords: tuple[Keyword, ...] = Field((), description="What it is more exactly.")
    keyword_other: Short | None = Field(None, description="What the keyword 'other' means.")
    ground: Ground = Field(description="Whether the law forbids it, or the platform's rules do.")
    legal_ground: Short | None = Field(None, description="The law and its article.")
    reference: Short | None = Field(
        None, description="Where the rules say it; empty: the class's clause is quoted."
    )
    explanation: Long = Field(description="Why pictures of this class are against that.")
    also_illegal: bool = Field(False, description="Against the rules, and against the law, too.")
    visibility: tuple[Visibility, ...] = Field((), description="What happens to the picture.")
    visibility_other: Short | None = Field(None, description="What 'other' means there.")
    monetary: Monetary | None = Field(None, description="What happens to payments.")
    monetary_other: Short | None = Field(None, description="What 'other' means there.")
    provision: Provision | None = Field(None, description="What happens to the service.")
    account: Account | None = Field(None, description="What happens to the account.")
    days: int | None = Field(
        None, ge=1, le=3_650, description="How long it is restricted; empty: indefinitely."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.ground is Ground.ILLEGAL_CONTENT and self.legal_ground is None:
            raise ValueError("what is illegal needs a legal_ground: name the law and its article")
        if self.ground is Ground.ILLEGAL_CONTENT and (self.reference or self.also_illegal):
            raise ValueError(
                "reference and also_illegal are for what is against your rules: leave them out"
            )
        if self.ground is Ground.INCOMPATIBLE_CONTENT and self.legal_ground is not None:
            raise ValueError("legal_ground is for what is illegal: leave it out, or set the ground")
        if not (self.visibility or self.monetary or self.provision or self.account):
            raise ValueError(
                "nothing is restricted: give visibility, monetary, provision or account"
            )
        self._others()
        own = KEYWORDS[self.category].union(*(KEYWORDS[c] for c in self.additions))
        if strange := [k for k in self.keywords if k not in own]:
            raise ValueError(
                f"{strange[0]!r} is no keyword of {self.category}: use one of "
                f"{', '.join(sorted(own))}"
            )
        return self

    def _others(self) -> None:
        """Whatever is `other` is said in words, and nothing else is."""
        for field, other, given in (
            ("keywords", "other" in self.keywords, self.keyword_other),
            ("visibility", Visibility.OTHER in self.visibility, self.visibility_other),
            ("monetary", self.monetary is Monetary.OTHER, self.monetary_other),
        ):
            name = f"{field.removesuffix('s')}_other"
            if other and given is None:
                raise ValueError(f"{field} says other: say in {name} what it is")
            if given is not None and not other:
                raise ValueError(f"{name} is said, but {field} does not say other")


class Notices(Strict):
    """What all notices of a platform have in common."""

    platform: Text = Field(description="Its name, as its users know it.")
    terms_url: Url = Field(description="Where this version of its rules can be read.")
    complaint_url: Contact = Field(description="Where users complain: an address, or mailto:…")
    complaint_days: int = Field(
        SIX_MONTHS,
        ge=SIX_MONTHS,
        le=3_650,
        description="How long they can, from the notice on; six months are the least.",
    )
    settlement: Text = Field(description="A certified body that settles disputes out of court.")
    settlement_url: Url | None = Field(None, description="Where it can be reached.")
    court: Long | None = Field(None, description="What users should know about going to court.")
    territory: tuple[Country, ...] = Field(
        EU, min_length=1, description="Where it is restricted; countries of the EEA."
    )
    languages: tuple[Language, ...] = Field(
        ("en",), min_length=1, description="Of the notices; the first one is the database's, too."
    )
    source: NoticeSource = Field(
        NoticeSource.SOURCE_VOLUNTARY, description="Who points at pictures."
    )
    acts_on: Literal["decision", "flag"] = Field(
        "decision", description="When the platform acts: once it is decided, or when it is flagged."
    )
