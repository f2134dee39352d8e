"""Sets up Jinja: escaping, strict names, and filters for numbers and times."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from filter_service.rendering.formats import ago, clock, coded, number, percent, signed

STAGES = {  # what the stages of a review are called
    "first": "first look",
    "second": "second look",
    "senior": "for a senior",
    "appeal": "appeal",
}

REPORTERS = {  # who points at a picture
    "user": "a user",
    "trusted_flagger": "a trusted flagger",
    "authority": "an authority",
    "own": "somebody who works here",
}


def environment(*folders: Path) -> Environment:
    """Templates of these folders; what is written into a page is escaped."""
    made = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "ago": ago,
        "clock": clock,
        "coded": coded,
        "number": number,
        "percent": percent,
        "signed": signed,
    }
    made.globals["STAGES"] = STAGES
    made.globals["REPORTERS"] = REPORTERS
    return made
