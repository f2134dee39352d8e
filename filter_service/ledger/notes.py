"""Signed notes (C2SP signed-note) and the cosignatures of witnesses (C2SP tlog-cosignature).

Text, an empty line, and a line for each signature. Who opens a note says which keys are known;
signatures of others are passed over, and a wrong one of a known key is refused.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from filter_service.errors import BrokenLedger, InvalidRequest

LOG = 1  # the kind of a key that signs a note's text
WITNESS = 4  # and of one that signs when the text was seen, too
DASH = "\N{EM DASH} "
LARGEST = 1_000_000  # characters, and
MOST = 100  # signatures of a note that is read

_SECRET = "PRIVATE+KEY+"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]|[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """The public half of a key, whose text is `name+id+base64`."""

    name: str
    kind: int
    public: bytes = field(repr=False)

    @classmethod
    def of(cls, vkey: str) -> "VerifyingKey":
        """Read a key's text; InvalidRequest says what is wrong with it."""
        name, _, rest = vkey.partition("+")
        key_id, _, encoded = rest.partition("+")
        found = _decoded(encoded)
        if (
            not _is_name(name)
            or found is None
            or len(found) != 33
            or found[0] not in (LOG, WITNESS)
        ):
            raise InvalidRequest(
                f"{vkey!r} is not a key: give name+id+base64, as `filter-service audit key` "
                "prints it."
            )
        key = cls(name, found[0], found[1:])
        if key.id.hex() != key_id:
            raise InvalidRequest(
                f"The key {vkey!r} has the id {key_id!r}, but its content has {key.id.hex()!r}: "
                "some of it was lost or changed; copy it anew."
            )
        return key

    @property
    def id(self) -> bytes:
        """Four bytes that tell keys of one name apart."""
        return sha256(f"{self.name}\n".encode() + bytes([self.kind]) + self.public).digest()[:4]

    @property
    def vkey(self) -> str:
        """The text by which others know the key."""
        content = b64encode(bytes([self.kind]) + self.public).decode()
        return f"{self.name}+{self.id.hex()}+{content}"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The secret half, whose text is `PRIVATE+KEY+name+id+base64`."""

    name: str
    seed: bytes = field(repr=False)
    kind: int = LOG

    @classmethod
    def new(cls, name: str, kind: int = LOG) -> "SigningKey":
        """A random one."""
        if not _is_name(name):
            raise InvalidRequest(f"{name!r} cannot name a key: no spaces, no '+', not empty.")
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw(), kind)

    @classmethod
    def of(cls, skey: str) -> "SigningKey":
        """Read a key's text; InvalidRequest never repeats it."""
        name, _, rest = skey.removeprefix(_SECRET).partition("+")
        key_id, _, encoded = rest.partition("+")
        found = _decoded(encoded)
        if not skey.startswith(_SECRET) or not _is_name(name) or found is None or len(found) != 33:
            raise InvalidRequest(f"This is not a secret key, which begins with {_SECRET}.")
        key = cls(name, found[1:], found[0])
        if key.kind not in (LOG, WITNESS) or key.verifying.id.hex() != key_id:
            raise InvalidRequest(f"The secret key {name}+{key_id} is damaged: its id is another.")
        return key

    @property
    def verifying(self) -> VerifyingKey:
        """The public half."""
        public = self._private().public_key().public_bytes_raw()
        return VerifyingKey(self.name, self.kind, public)

    @property
    def vkey(self) -> str:
        """The public half's text."""
        return self.verifying.vkey

    @property
    def skey(self) -> str:
        """The secret half's text."""
        content = b64encode(bytes([self.kind]) + self.seed).decode()
        return f"{_SECRET}{self.name}+{self.verifying.id.hex()}+{content}"

    def line(self, signed: bytes, before: bytes = b"") -> str:
        """The line of a signature."""
        content = self.verifying.id + before + self._private().sign(signed)
        return f"{DASH}{self.name} {b64encode(content).decode()}\n"

    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)


@dataclass(frozen=True, slots=True)
class VerifiedNote:
    """A note's text, and whose signatures are good."""

    text: str
    verified: tuple[str, ...]  # vkeys: keys of one name may be several
    seen: dict[str, int]  # a witness' vkey -> when it saw the text, in seconds since 1970


def sign(text: str, keys: Sequence[SigningKey]) -> str:
    """The note of a text with the signatures of these keys."""
    if not text.endswith("\n") or _CONTROL.search(text) or not keys:
        raise ValueError("A note's text ends with a newline, is printable, and somebody signs it.")
    return f"{text}\n" + "".join(key.line(text.encode()) for key in keys)


def cosign(note: str, key: SigningKey, time: int) -> str:
    """The note with one more line: a witness says that it saw the text at this time."""
    text, _ = split(note)
    return note + key.line(_cosigned(text, time), time.to_bytes(8))


def open_note(note: str, vkeys: Iterable[str]) -> VerifiedNote:
    """Check a note against known keys.

    BrokenLedger if it has another form, if a known key's signature is wrong, or if there is none.
    """
    text, lines = split(note)
    known = {(key.name, key.id): key for key in map(VerifyingKey.of, vkeys)}
    verified: dict[str, None] = {}
    seen: dict[str, int] = {}
    for name, content in lines:
        key = known.get((name, content[:4]))
        if key is None:
            continue
        time = _checked(key, content[4:], text)
        verified[key.vkey] = None
        if time is not None:
            seen[key.vkey] = max(time, seen.get(key.vkey, 0))
    if not verified:
        signers = ", ".join(f"{name}+{content[:4].hex()}" for name, content in lines)
        raise BrokenLedger(
            f"No known key signed the note that begins {text[:60]!r}; it is signed by {signers}, "
            f"known are {', '.join(f'{k.name}+{k.id.hex()}' for k in known.values()) or 'none'}."
        )
    return VerifiedNote(text, tuple(verified), seen)


def split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Text and signatures (name, id and signature) of a note, nothing verified."""
    if len(note) > LARGEST or _CONTROL.search(note):
        raise BrokenLedger(
            f"The note that begins {note[:60]!r} is too long or holds control characters."
        )
    text, blank, rest = note.rpartition("\n\n")
    lines = rest.split("\n")
    if not blank or not text or lines.pop() != "" or not 1 <= len(lines) <= MOST:
        raise BrokenLedger(
            f"The note that begins {note[:60]!r} has another form than text, an empty line and "
            "lines of signatures."
        )
    return f"{text}\n", [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes]:
    name, _, encoded = line.removeprefix(DASH).partition(" ")
    content = _decoded(encoded)
    if not line.startswith(DASH) or not _is_name(name) or content is None or len(content) < 5:
        raise BrokenLedger(f"The line {line[:200]!r} of a note is not a signature.")
    return name, content


def _checked(key: VerifyingKey, signature: bytes, text: str) -> int | None:
    """Verify one signature; a witness' time."""
    time, signed = None, text.encode()
    if key.kind == WITNESS:
        time, signature = int.from_bytes(signature[:8]), signature[8:]
        signed = _cosigned(text, time)
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, signed)
    except InvalidSignature as error:
        raise BrokenLedger(
            f"The signature of {key.name}+{key.id.hex()} under the note that begins {text[:60]!r} "
            "is wrong: the text was changed, or somebody else signed."
        ) from error
    return time


def _cosigned(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() for c in name)


def _decoded(encoded: str) -> bytes | None:
    """Base64 in its only form: None where another text would mean the same bytes."""
    try:
        content = b64decode(encoded, validate=True)
    except ValueError:
        return None
    return content if b64encode(content).decode() == encoded else None
