"""Writes statements in plain language: the facts, and the user's notice as text and HTML."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from enum import StrEnum
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from filter_service.policy.statement_grounds import EEA, EU
from filter_service.policy.statement_mapping import Language
from filter_service.statements.reasons import Reasons

HERE = Path(__file__).parent
VERSION = 12  # letters of a policy's digest, by which people know its version
BETWEEN = "\n\n* * *\n\n"  # two languages


class NoticePartKind(StrEnum):
    """What a part of a notice is."""

    TITLE = "title"
    HEADING = "heading"
    LIST = "list"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class NoticePart:
    """A heading, a list or a paragraph."""

    kind: NoticePartKind
    lines: tuple[str, ...]  # of a list its points, else one


@cache
def _templates() -> Environment:
    """Of plain texts, which are escaped when they become HTML."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"hundred": _hundred, "in_words": _in_words, "quoted": _quoted}
    environment.globals |= {"eu": EU, "eea": EEA}
    return environment


def facts(reasons: Reasons, language: Language) -> str:
    """What the decision rests on, without a word about anybody."""
    template = _templates().get_template(f"{language}/facts.txt")
    version = f"{reasons.policy.name}-{reasons.policy.digest[:VERSION]}"
    return _tidy(template.render(r=reasons, version=version))


def notice(reasons: Reasons) -> str:
    """What the user is told, in each of the policy's languages."""
    return BETWEEN.join(_notice(reasons, lang) for lang in reasons.notices.languages)


def parts(text: str) -> list[list[NoticePart]]:
    """A notice taken apart, language by language."""
    return [list(_parts(part)) for part in text.split(BETWEEN)]


def page(text: str, languages: Sequence[str]) -> str:
    """A notice as an HTML page of its own, to be sent or printed."""
    page = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True)
    found = list(zip(languages, parts(text), strict=True))
    return page.get_template("notice.html").render(notices=found)


@cache
def vocabulary(language: Language) -> str:
    """Every word that our own templates of a language are made of."""
    return " ".join(p.read_text("utf-8") for p in sorted((HERE / "templates" / language).iterdir()))


def _notice(reasons: Reasons, language: Language) -> str:
    begin = reasons.decided_at.astimezone(UTC).date()
    days = reasons.stated.days
    template = _templates().get_template(f"{language}/notice.txt")
    text = template.render(
        r=reasons,
        puid=reasons.puid,
        facts=facts(reasons, language),
        begin=begin,
        end=None if days is None else begin + timedelta(days=days),
    )
    return _tidy(text)


def _parts(text: str) -> Iterator[NoticePart]:
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if len(lines) == 2 and set(lines[1]) in ({"="}, {"-"}):
            yield NoticePart(
                NoticePartKind.TITLE if lines[1][0] == "=" else NoticePartKind.HEADING, (lines[0],)
            )
        elif block.startswith("- "):
            yield NoticePart(NoticePartKind.LIST, tuple(line.removeprefix("- ") for line in lines))
        else:
            yield NoticePart(NoticePartKind.TEXT, (block,))


def _tidy(text: str) -> str:
    """One line for each paragraph and point, however the template was broken into lines."""
    return "\n\n".join(filter(None, map(_joined, text.split("\n\n"))))


def _joined(block: str) -> str:
    lines: list[str] = []
    for line in (" ".join(part.split()) for part in block.splitlines()):
        if set(line) in ({"="}, {"-"}) and lines:
            lines.append(line[0] * len(lines[-1]))  # an underlined heading
        elif line.startswith("- ") or (line and not lines):
            lines.append(line)
        elif line:
            lines[-1] += f" {line}"
    return "\n".join(lines)


def _hundred(share: float) -> str:
    """Of 100, with as many digits as tell it from certainty."""
    return f"{min(100 * share, 99.9):.3g}"


def _quoted(word: str, before: str, after: str) -> str:
    return f"{before}{word}{after}"


def _in_words(code: str, words: Mapping[str, str]) -> str:
    return words[code]
