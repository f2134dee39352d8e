"""Parses submissions: files, URIs or a manifest, with a policy and a priority."""

import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, Field, StringConstraints, ValidationError, field_validator
from starlette.exceptions import HTTPException

from filter_service import images
from filter_service.egress.uri_rules import AllowList, shown
from filter_service.errors import ImageError, UnsafeAddress
from filter_service.intake import manifests
from filter_service.intake.submissions import Submission
from filter_service.policy.spelling import unknown
from filter_service.policy.strict import StrictModel, each_once
from filter_service.reviews.report_input import ReportInput
from filter_service.rollout.named_policies import LARGEST_POLICY
from filter_service.settings import Settings
from filter_service.web.http.described_requests import TWICE, fault
from filter_service.web.http.service import Service, service
from filter_service.web.http.uploads import FormPart, RequestLimits, cleaned, spooled

MOST_ADDRESSES = 10_000  # of one JSON body; a manifest may have more
LONGEST_ADDRESS = 8_192
LARGEST_DOCUMENT = 4 * 2**20  # bytes of a JSON body
URGENT = 1_000

FORM, JSON = "multipart/form-data", "application/json"
LINES = (manifests.MEDIA_TYPE, "application/x-ndjson", "application/json-lines")

_ARCHIVES = {  # first bytes -> what it is
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "an empty zip archive",
    b"\x1f\x8b": "a gzip file",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
}

REPORTED = {"1.jpg": {"source": "user", "reason": "It offers a gun for sale."}}

Label = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")]
Priority = Annotated[int, Field(ge=-URGENT, le=URGENT)]
Address = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_ADDRESS)]


class SubmissionTerms(StrictModel):
    """What is asked of a batch, however its images come."""

    policy: str | dict[str, Any] = Field(
        description="A stored policy's name (its active version; the newest, where none was ever "
        "activated) or digest, or a policy as a document: an object, or YAML as a text."
    )
    label: Label = Field("", description="A name for people.")
    priority: Priority = Field(0, description="Higher is judged sooner.")
    reports: dict[str, ReportInput] = Field(
        default_factory=dict,
        max_length=MOST_ADDRESSES,
        description="What was reported of the images, by the names of their files or by their "
        "addresses; in a form, as JSON. In a manifest, each line has its own `report`.",
        examples=[REPORTED],
    )

    @field_validator("reports", mode="before")
    @classmethod
    def _is_json_in_a_form(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        try:
            return json.loads(given, object_pairs_hook=each_once)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"is not JSON ({error})") from error


NAMED = (*SubmissionTerms.model_fields, "manifest")  # the fields of a form, besides its files


class AddressBatch(SubmissionTerms):
    """A batch of images that the service fetches."""

    model_config = ConfigDict(strict=True)  # true is no priority

    uris: list[Address] = Field(
        min_length=1,
        max_length=MOST_ADDRESSES,
        description="https addresses on the hosts that the operator allows.",
    )


@dataclass(frozen=True)
class Order:
    """One request for a batch, read but not yet accepted."""

    terms: SubmissionTerms
    files: tuple[FormPart, ...] = ()
    lines: FormPart | None = None  # of a manifest
    uris: tuple[str, ...] = ()

    def request(self) -> str:
        """SHA-256 over all that was asked, so that the same request is known again."""
        sha = hashlib.sha256(self.terms.model_dump_json(exclude={"reports"}).encode())
        for part in (*self.files, *filter(None, [self.lines])):
            sha.update(f"\n{part.filename!r} {part.size}\n".encode(errors="replace"))
            for piece in part.pieces():
                sha.update(piece)
        sha.update(json.dumps(self.uris).encode())
        if self.terms.reports:
            sha.update(self.terms.model_dump_json(include={"reports"}).encode())
        return sha.hexdigest()

    def submissions(self, settings: Settings) -> Iterator[Submission]:
        """The files or addresses; one that cannot be taken says why and spoils no other."""
        limits = images.Limits.of(settings)
        allowed = AllowList.of(settings.fetch_hosts, inside=bool(settings.fetch_private))
        for part in self.files:
            yield replace(_uploaded(part, limits), report=self.terms.reports.get(_name(part)))
        for line in self._lines():
            yield replace(_named(line, allowed), report=line.report)

    @property
    def reports(self) -> int:
        """How many reports come with it, at most."""
        if self.lines is None:
            return len(self.terms.reports)
        return sum(b'"report"' in line for line in self.lines.lines(manifests.LONGEST_LINE))

    def _lines(self) -> Iterator[manifests.ManifestLine]:
        if self.lines is None:
            reports = self.terms.reports
            yield from (manifests.ManifestLine(u, report=reports.get(u)) for u in self.uris)
        else:
            yield from manifests.read(self.lines.lines(manifests.LONGEST_LINE))


async def order(
    request: Request,
    here: Annotated[Service, Depends(service)],
    policy: Annotated[
        str | None, Query(description="With a manifest as the body: a stored policy.")
    ] = None,
    label: Annotated[Label, Query(description="Likewise: a name for people.")] = "",
    priority: Annotated[Priority, Query(description="Likewise: higher is judged sooner.")] = 0,
) -> AsyncIterator[Order]:
    """The dependency that reads a request for a batch; its spooled bytes go with it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (FORM, JSON, *LINES):
        raise HTTPException(
            415, f"{kind or 'A body of no type'!r} is not taken: send {FORM}, {JSON} or {LINES[0]}."
        )
    if kind in (FORM, JSON) and request.query_params:
        raise RequestValidationError(
            [fault("query", name, "goes into the body here") for name in request.query_params]
        )
    async for parts in spooled(request, limits_of(here.settings)):
        if kind == FORM:
            yield _from_form(parts)
        elif kind == JSON:
            yield _from_json(parts[0])
        else:
            asked = {"policy": policy, "label": label, "priority": priority}
            yield _with_lines(_terms(SubmissionTerms, asked, "query"), parts[0])


def limits_of(settings: Settings) -> RequestLimits:
    return RequestLimits(settings.upload_files, settings.upload_bytes)


def _from_json(body: FormPart) -> Order:
    asked = _terms(AddressBatch, _document(body), "body")
    _require_named(asked, asked.uris)
    return Order(asked, uris=tuple(asked.uris))


def _document(body: FormPart) -> object:
    if body.size > LARGEST_DOCUMENT:
        raise HTTPException(
            413, f"The JSON has more than {LARGEST_DOCUMENT:,} bytes: send a manifest instead."
        )
    try:
        found: object = json.loads(body.read(), object_pairs_hook=each_once)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The body is not JSON ({error}): mend it.") from error
    return found


def _from_form(parts: Iterable[FormPart]) -> Order:
    fields: dict[str, FormPart] = {}
    files = []
    for part in parts:
        if part.name in NAMED:
            if part.name in fields:
                raise _invalid(part.name, TWICE)
            fields[part.name] = part
        elif part.filename is not None:
            files.append(part)
        elif part.name != "csrf_token":
            raise _invalid(part.name[:100], _no_file(part.name))
    lines = fields.pop("manifest", None)
    terms = _terms(SubmissionTerms, {name: _field(part) for name, part in fields.items()}, "body")
    if lines is not None and files:
        raise _invalid("manifest", "comes without files: send either, in two requests if need be")
    if lines is not None:
        _require_named(terms, [])
        return _with_lines(terms, lines)
    if not files:
        raise _invalid("files", "holds no file; send at least one, or a manifest")
    _require_named(terms, map(_name, files))
    return Order(terms, files=tuple(files))


def _require_named(terms: SubmissionTerms, names: Iterable[str]) -> None:
    """Each report is of something that comes with it."""
    if others := sorted(terms.reports.keys() - set(names)):
        said = "which is not sent with it: reports are named by file or address"
        raise _invalid("reports", f"is of {others[0][:100]!r}, {said}")


def _name(part: FormPart) -> str:
    return part.filename or ""


def _no_file(name: str) -> str:
    """What is wrong with a field that has no file name."""
    if name == "files":
        return "has no file name: send an image as a file, with a name"
    return unknown(name, (*NAMED, "files"))


def _with_lines(terms: SubmissionTerms, lines: FormPart) -> Order:
    if not any(line.strip() for line in lines.lines(manifests.LONGEST_LINE)):
        raise _invalid("manifest", "has no line; write one for each image")
    return Order(terms, lines=lines)


def _field(part: FormPart) -> str:
    if part.size > LARGEST_POLICY:
        raise _invalid(part.name, f"has more than {LARGEST_POLICY:,} bytes")
    try:
        return part.read().decode()
    except UnicodeDecodeError as error:
        raise _invalid(part.name, f"is not UTF-8 ({error.reason})") from error


T = TypeVar("T", bound=SubmissionTerms)


def _terms(kind: type[T], asked: object, where: str) -> T:
    try:
        return kind.model_validate(asked)
    except ValidationError as error:
        faults = [{**e, "loc": (where, *e["loc"])} for e in error.errors(include_url=False)]
        raise RequestValidationError(faults) from error


def _invalid(field: str, message: str) -> RequestValidationError:
    return RequestValidationError([fault("body", field, message)])


def _named(line: manifests.ManifestLine, allowed: AllowList) -> Submission:
    if line.error is not None:
        return Submission(line.source, error=line.error)
    try:
        allowed.check(line.source)
    except UnsafeAddress as error:
        plain = line.source.isprintable() and "@" not in line.source  # no credentials are kept
        return Submission(line.source if plain else shown(line.source), error=str(error))
    return Submission(line.source, uri=line.source, attributes=line.attributes)


def _uploaded(part: FormPart, limits: images.Limits) -> Submission:
    source = cleaned(part.filename or "")
    head = part.read(8)
    archive = next((what for magic, what in _ARCHIVES.items() if head.startswith(magic)), None)
    if archive is not None:
        said = f"The file is {archive}; archives are not unpacked: submit the images themselves."
        return Submission(source, error=said)
    try:
        images.check_bytes(part.size, limits)  # before that many are in memory
        data = part.read()
        images.check(data, limits)
    except ImageError as error:
        return Submission(source, error=str(error))
    return Submission(source, data)
