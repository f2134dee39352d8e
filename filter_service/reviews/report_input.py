"""What somebody says who reports a picture."""

from enum import StrEnum

from pydantic import ConfigDict, Field

from filter_service.policy.strict import WORDS, Name, StrictModel

LONGEST_REASON = 5_000  # letters
LONGEST_REFERENCE = 200  # letters


class ReportSource(StrEnum):
    """Who points at a picture."""

    USER = "user"
    TRUSTED_FLAGGER = "trusted_flagger"  # a body that a public authority has approved
    AUTHORITY = "authority"
    OWN = "own"  # somebody who works for the platform, or here

    @property
    def rank(self) -> int:
        """The higher, the sooner somebody looks."""
        return 2 if self in (ReportSource.TRUSTED_FLAGGER, ReportSource.AUTHORITY) else 1


class ReportInput(StrictModel):
    """A picture is said to be forbidden."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "example": {
                **{"source": "user", "reason": "It offers a gun for sale."},
                **{"class_name": "weapons", "reference": "ticket-4711"},
            }
        },
    )

    source: ReportSource = Field(description="Who points at the picture.")
    reason: str = Field(
        min_length=1,
        max_length=LONGEST_REASON,
        pattern=WORDS,
        description="In the words of whoever reports it; moderators read it.",
        examples=["It offers a gun for sale."],
    )
    class_name: Name | None = Field(
        None, description="The class of the item's policy that it shows, if that is known."
    )
    reference: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_REFERENCE,
        pattern=WORDS,
        description="Yours for this report: sent again about the same item, it is the same report.",
        examples=["ticket-4711"],
    )
