"""The Merkle tree of RFC 9162: hashes, roots, inclusion and consistency proofs.

What is read of a stored tree comes through `Read`: the hash of a *complete* subtree, the one over
the leaves [index * 2**level, (index + 1) * 2**level).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from hashlib import sha256

from filter_service.errors import BrokenLedger

EMPTY = sha256(b"").digest()  # the root of a tree without leaves

Read = Callable[[int, int], bytes]  # level, index -> hash


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf."""
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees side by side."""
    return sha256(b"\1" + left + right).digest()


def root_of_hashes(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes; of 2**n hashes of subtrees, the one above them."""
    frontier = Frontier()
    frontier.extend(hashes)
    return frontier.root()


class Frontier:
    """The right edge of a growing tree: all that is needed of it to add leaves and tell the root.

    `hashes` are those of the complete subtrees from left to right, one for each set bit of `size`.
    """

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self.size = size
        self.hashes = list(hashes)
        if len(self.hashes) != size.bit_count():
            raise ValueError(f"A tree of {size} leaves has {size.bit_count()} complete subtrees.")

    @classmethod
    def of(cls, read: Read, size: int) -> "Frontier":
        """The right edge of a stored tree."""
        return cls(size, [read(level, index) for level, index in _complete(0, size)])

    def push(self, leaf: bytes) -> None:
        """Add one leaf by its hash."""
        size, hashed = self.size, leaf
        while size & 1:
            hashed = node_hash(self.hashes.pop(), hashed)
            size >>= 1
        self.hashes.append(hashed)
        self.size += 1

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add many."""
        for leaf in leaves:
            self.push(leaf)

    def root(self) -> bytes:
        """The root over everything so far."""
        return _fold(self.hashes) if self.hashes else EMPTY


def root_of(read: Read, size: int) -> bytes:
    """The root that a stored tree had at a size."""
    return Frontier.of(read, size).root()


def inclusion_proof(read: Read, index: int, size: int) -> list[bytes]:
    """What shows that a leaf is in the tree of this size: the hashes beside its way up."""
    if not 0 <= index < size:
        raise ValueError(f"A tree of {size} leaves has no leaf {index}.")
    start, end, proof = 0, size, []
    while end - start > 1:
        middle = start + _half(end - start)
        if index < middle:
            proof.append(_root_between(read, middle, end))
            end = middle
        else:
            proof.append(_root_between(read, start, middle))
            start = middle
    return proof[::-1]


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that the proof leads to from a leaf's hash; BrokenLedger if it has another form."""
    if not 0 <= index < size:
        raise BrokenLedger(f"A tree of {size} leaves has no leaf {index}, so nothing proves it.")
    place, last, root = index, size - 1, leaf
    for beside in proof:
        if last == 0:
            raise BrokenLedger(f"The proof of leaf {index} of {size} has {len(proof)} hashes.")
        if place & 1 or place == last:
            root = node_hash(beside, root)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            root = node_hash(root, beside)
        place, last = place >> 1, last >> 1
    if last:
        raise BrokenLedger(f"The proof of leaf {index} of {size} has only {len(proof)} hashes.")
    return root


def verify_inclusion(
    leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """BrokenLedger unless the proof shows that the tree of this size and root has the leaf."""
    if (found := root_from_inclusion(leaf, index, size, proof)) != root:
        raise BrokenLedger(
            f"Leaf {index} is not in the tree of {size} leaves: its proof leads to the root "
            f"{found.hex()} and not to {root.hex()}."
        )


def consistency_proof(read: Read, old: int, new: int) -> list[bytes]:
    """What shows that the tree of `new` leaves only added to the one of `old` leaves."""
    if not 0 <= old <= new:
        raise ValueError(f"A tree of {new} leaves does not come after one of {old}.")
    if old in (0, new):
        return []
    start, end, proof = 0, new, []
    while end != old:
        middle = start + _half(end - start)
        if old <= middle:
            proof.append(_root_between(read, middle, end))
            end = middle
        else:
            proof.append(_root_between(read, start, middle))
            start = middle
    if start:  # else it is the old root, which whoever verifies has
        proof.append(_root_between(read, start, end))
    return proof[::-1]


def verify_consistency(
    old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """BrokenLedger unless the proof shows that the newer tree only added to the older one."""
    if old > new:
        raise BrokenLedger(f"The tree of {new} leaves is smaller than the one before, of {old}.")
    if old in (0, new):
        found = (EMPTY if old == 0 else new_root, old_root if old == new else new_root)
    else:
        found = _roots_from_consistency(old, old_root, new, proof)
    if found != (old_root, new_root) or (proof and old in (0, new)):
        raise BrokenLedger(
            f"The tree of {new} leaves, root {new_root.hex()}, does not go on from the tree of "
            f"{old} leaves, root {old_root.hex()}: something of before was changed."
        )


def _roots_from_consistency(
    old: int, old_root: bytes, new: int, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """Both roots that a proof leads to; BrokenLedger if it has another form (RFC 9162, 2.1.4.2)."""
    wrong = BrokenLedger(f"A proof from {old} to {new} leaves does not have {len(proof)} hashes.")
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    hashes = iter(proof if old & (old - 1) else (old_root, *proof))
    first = next(hashes, None)
    if first is None:
        raise wrong
    older = newer = first
    for beside in hashes:
        if last == 0:
            raise wrong
        if place & 1 or place == last:
            older, newer = node_hash(beside, older), node_hash(beside, newer)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            newer = node_hash(newer, beside)
        place, last = place >> 1, last >> 1
    if last:
        raise wrong
    return older, newer


def _half(width: int) -> int:
    """The largest power of two that is smaller."""
    return 1 << ((width - 1).bit_length() - 1)


def _fold(hashes: Sequence[bytes]) -> bytes:
    return reduce(lambda right, left: node_hash(left, right), reversed(hashes))


def _root_between(read: Read, start: int, end: int) -> bytes:
    return _fold([read(level, index) for level, index in _complete(start, end)])


def _complete(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The complete subtrees over the leaves [start, end), largest first: -> level, index.

    `start` is a multiple of the first one's width, as every subtree's start is.
    """
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level
