"""What every part of a policy is: frozen, without unknown fields, and known by what it says."""

from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Storable = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]  # Postgres keeps no NUL
Text = Annotated[Storable, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]


class Strict(BaseModel):
    """A part of a policy."""

    # No number may be NaN or infinite: a NaN probability would never reach its threshold.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # Fields of after the first release: unset they are left out, and older digests stay the same.
    LATER: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_what_is_new_and_unset(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        document: dict[str, Any] = serialize(self)
        return {k: v for k, v in document.items() if v is not None or k not in self.LATER}
