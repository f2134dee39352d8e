"""Tracks which keys may sign checkpoints, through every key rotation."""

from collections.abc import Sequence

from filter_service.errors import BrokenLedger, InvalidRequest
from filter_service.ledger.checkpoints import Checkpoint, open_checkpoint
from filter_service.ledger.signers import KnownKey, who_signs


class Keys:
    """The keys of a ledger, as its sealed entries tell of them one after the other."""

    def __init__(
        self, first: str | None, given: Sequence[str] = (), witnesses: Sequence[str] = ()
    ) -> None:
        """`given` are keys that whoever checks knows from elsewhere; without them, the first."""
        first = first or next(iter(given), None)
        self.chain = [] if first is None else [KnownKey(first, 0)]
        self.seen = dict.fromkeys(witnesses, 0)  # the largest size that each has co-signed
        self._trusted = set(given) or {key.vkey for key in self.chain}

    def learn(self, vkey: str, position: int) -> None:
        """A key was added by the entry at this position."""
        if self.chain and vkey != self.chain[0].vkey:
            self.chain.append(KnownKey(vkey, position))

    def open(self, note: str, before: int, size: int) -> Checkpoint:
        """Read the note of a size, the one before it being of size `before`.

        BrokenLedger unless everybody has signed who had to, and is trusted.
        """
        if not self.chain:
            raise BrokenLedger("there is no key: give the one that it was signed with")
        signers = who_signs(self.chain, before, size)
        try:
            checkpoint, opened = open_checkpoint(note, [*signers, *self.seen])
        except InvalidRequest as error:  # an entry or a row names a key that is none
            raise BrokenLedger(str(error)) from error
        for vkey in signers:
            if vkey not in opened.verified:
                raise BrokenLedger(f"the key {vkey} had to sign it and did not")
        if signers[0] not in self._trusted:
            raise BrokenLedger(
                f"it is signed by {signers[0]}, which is none of the keys that were given, nor did "
                "one of them hand over to it"
            )
        self._trusted.update(signers)  # a hand-over: who trusts one can trust the next
        for witness in opened.seen:
            self.seen[witness] = max(self.seen[witness], checkpoint.size)
        return checkpoint

    @property
    def absent(self) -> list[str]:
        """What is to be said of witnesses that co-signed nothing."""
        return [
            f"The witness {vkey} has co-signed none of the checkpoints."
            for vkey, size in self.seen.items()
            if size == 0
        ]
