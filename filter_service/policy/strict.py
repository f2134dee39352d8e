"""Base classes of pydantic models that refuse unknown fields."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from filter_service.policy.spelling import unknown

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
WORDS = r"^[^\x00]*[^\s\x00][^\x00]*$"  # something to read, and no NUL
Storable = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]  # Postgres keeps no NUL
Text = Annotated[Storable, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]


UNKNOWN = "unknown_field"  # pydantic's word for an error of ours


class StrictModel(BaseModel):
    """What refuses a field that nobody knows, and names the one that it is nearest to."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _names_what_is_known(cls, given: object, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(given)
        except ValidationError as error:
            faults = [_fault(e, cls) for e in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(cls.__name__, faults) from None


class Strict(StrictModel):
    """A part of a policy."""

    # No number may be NaN or infinite: a NaN probability would never reach its threshold.
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    # Fields of after the first release: unset they are left out, and older digests stay the same.
    LATER: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_what_is_new_and_unset(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        document: dict[str, Any] = serialize(self)
        return {k: v for k, v in document.items() if v is not None or k not in self.LATER}


def _fault(error: ErrorDetails, model: type[BaseModel]) -> InitErrorDetails:
    """The same fault; that of an unknown field of this model says which fields there are."""
    kind: str | PydanticCustomError = error["type"]
    if kind == "extra_forbidden" and len(error["loc"]) == 1:
        kind = PydanticCustomError(UNKNOWN, unknown(str(error["loc"][0]), model.model_fields))
    elif kind == UNKNOWN:  # of a part of this model, which has said so
        kind = PydanticCustomError(UNKNOWN, error["msg"])
    return InitErrorDetails(
        type=kind, loc=error["loc"], input=error["input"], ctx=error.get("ctx", {})
    )


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as it is read; ValueError where a name stands twice, of which one is lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"{next(n for n in names if names.count(n) > 1)[:80]!r} stands there more than once"
        )
    return found
