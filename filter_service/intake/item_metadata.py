"""What a platform says of an image beside it: a small flat map of texts, for figures by slices."""

from pydantic import TypeAdapter, ValidationError

from filter_service.policy.strict import Name

MOST_ATTRIBUTES = 16
LONGEST_VALUE = 100  # letters
SHOWN = 80  # letters of what is faulty in its message

_NAME: TypeAdapter[str] = TypeAdapter(Name)


def fault_of(metadata: object) -> str | None:
    """Why this cannot be kept, a sentence; None: it can."""
    if not isinstance(metadata, dict) or len(metadata) > MOST_ATTRIBUTES:
        return (
            f"The metadata is no flat map of at most {MOST_ATTRIBUTES} names to texts; write "
            '{"region": "north"}.'
        )
    for name, value in metadata.items():
        try:
            _NAME.validate_python(name)
        except ValidationError:
            return (
                f"The metadata has the name {name[:SHOWN]!r}: use lower case, digits, - and _, at "
                "most 64."
            )
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            shown = repr(value)[:SHOWN]
            return f"The metadata gives {name} {shown}: give a text in quotes."
        if len(value) > LONGEST_VALUE:
            return f"The metadata gives {name} {len(value)} letters: give {LONGEST_VALUE} at most."
    return None
