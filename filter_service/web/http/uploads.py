"""Streams the body of a request, or the parts of a form, to one temporary file.

A thousand files cost one open file and no memory, whatever their sizes, and what is too much is
refused as soon as it is too much.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, TypeVar

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

T = TypeVar("T")
FIELDS = 20  # besides the files of a request
LONGEST_NAME = 1_000  # letters of a file's name that people still read
ENCODED = "The body is encoded as {}, which is not unpacked here: send it as it is."


@dataclass(frozen=True, slots=True)
class FormPart:
    """A field or a file of a form, as a stretch of the spooled bytes."""

    spool: IO[bytes]
    name: str
    filename: str | None  # None: a field
    start: int
    size: int

    def read(self, most: int = -1) -> bytes:
        """The first bytes, or all."""
        self.spool.seek(self.start)
        return self.spool.read(self.size if most < 0 else min(most, self.size))

    def pieces(self, size: int = 2**20) -> Iterator[bytes]:
        """The bytes, some at a time; nobody else may read meanwhile."""
        for at in range(0, self.size, size):
            self.spool.seek(self.start + at)
            yield self.spool.read(min(size, self.size - at))

    def lines(self, longest: int) -> Iterator[bytes]:
        """The lines; of one that is longer than allowed, so much that it can be told."""
        at, end = self.start, self.start + self.size
        while at < end:
            self.spool.seek(at)
            line = self.spool.readline(min(longest + 1, end - at))
            at += len(line)
            whole = line
            while whole and not whole.endswith(b"\n") and at < end:  # the rest of a long line
                whole = self.spool.readline(min(2**20, end - at))
                at += len(whole)
            yield line


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How much one request may bring."""

    files: int
    bytes: int


async def spooled(request: Request, limits: RequestLimits) -> AsyncIterator[list[FormPart]]:
    """The parts of a form, or the body as the one part `body`; gone when this is closed."""
    _refuse_encoded(request, limits)
    kind = request.headers.get("content-type", "")
    with TemporaryFile() as spool:
        if kind.partition(";")[0].strip().lower() == "multipart/form-data":
            form = _Form(spool, kind, limits)
            async for chunk in _counted(request, limits):
                await run_in_threadpool(form.write, chunk)
            yield form.finished()
        else:
            size = 0
            async for chunk in _counted(request, limits):
                size += await run_in_threadpool(spool.write, chunk)
            yield [FormPart(spool, "body", None, 0, size)]


def cleaned(name: str) -> str:
    """A file's name for people: no path leads out of it, no letter hides in it.

    It is never used to open anything: images are kept under their digests.
    """
    printable = "".join(c if c.isprintable() else "�" for c in name)
    steps = (s.strip() for s in printable.replace("\\", "/").split("/"))
    kept = "/".join(s for s in steps if s not in ("", ".", ".."))
    return kept[:LONGEST_NAME] or "unnamed"


def _refuse_encoded(request: Request, limits: RequestLimits) -> None:
    """What only unpacks to something large is not unpacked; what says its size is believed."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise HTTPException(415, ENCODED.format(encoding))
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.bytes:
        raise _too_much(limits)


async def _counted(request: Request, limits: RequestLimits) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limits.bytes:
            raise _too_much(limits)
        yield chunk


def _too_much(limits: RequestLimits) -> HTTPException:
    return HTTPException(
        413,
        f"The request has more than {limits.bytes:,} bytes: send it in several, or raise "
        "FILTER_SERVICE_UPLOAD_BYTES.",
    )


@dataclass
class _Form:
    """Writes what a multipart parser finds one after the other."""

    spool: IO[bytes]
    kind: str
    limits: RequestLimits
    parts: list[FormPart] = field(default_factory=list)

    def __post_init__(self) -> None:
        boundary = parse_options_header(self.kind)[1].get(b"boundary")
        if not boundary:
            raise HTTPException(400, "The form names no boundary: let your HTTP library make it.")
        self._header = self._value = b""
        self._disposition = b""
        self._start = self._size = self._files = 0
        self._ended = False
        self._parser = self._translated(lambda: MultipartParser(boundary, self._callbacks()))

    def write(self, chunk: bytes) -> None:
        self._translated(lambda: self._parser.write(chunk))

    def finished(self) -> list[FormPart]:
        self._translated(self._parser.finalize)
        if not self._ended:
            raise HTTPException(400, "The form ends in the middle of a part: send it whole.")
        return self.parts

    def _translated(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except FormParserError as error:
            raise HTTPException(
                400, f"The form cannot be read ({error}): send multipart/form-data."
            ) from error

    def _callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
            "on_end": self._on_end,
        }

    def _begin(self) -> None:
        self._header = self._value = self._disposition = b""
        self._start += self._size
        self._size = 0

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._size += self.spool.write(data[start:end])

    def _end(self) -> None:
        options = parse_options_header(self._disposition)[1]
        if b"name" not in options:
            raise HTTPException(400, "A part of the form has no name: give every part one.")
        filename = options.get(b"filename")
        self.parts.append(
            FormPart(
                self.spool,
                options[b"name"].decode(errors="replace"),
                None if filename is None else filename.decode(errors="replace"),
                self._start,
                self._size,
            )
        )
        self._files += filename is not None
        self._refuse_many()

    def _refuse_many(self) -> None:
        if self._files > self.limits.files:
            raise HTTPException(
                413,
                f"The request has more than {self.limits.files:,} files: send them in several, "
                "or raise FILTER_SERVICE_UPLOAD_FILES.",
            )
        if len(self.parts) - self._files > FIELDS:
            raise HTTPException(413, f"The form has more than {FIELDS} fields besides its files.")

    def _on_end(self) -> None:
        self._ended = True
