"""The tree: known vectors, every shape against an independent library, and every wrong proof."""

from hashlib import sha256

import pytest
from pymerkle import InmemoryTree

from filter_service.errors import BrokenLedger
from filter_service.ledger.merkle import (
    EMPTY,
    Frontier,
    Read,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_from_inclusion,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from filter_service.ledger.tiles import HASH, WIDTH, grown, places, reading, split

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 255, 256, 257, 511, 513, 1000)

# The eight leaves of Certificate Transparency's tests, and the roots of their first n.
LEAVES = [
    bytes.fromhex(data)
    for data in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def hashes_of(n: int) -> list[bytes]:
    return [leaf_hash(f"leaf {i}".encode()) for i in range(n)]


def tree_of(leaves: list[bytes], step: int = 100) -> Read:
    """A stored tree that grew step by step."""
    tiles: dict[tuple[int, int], bytes] = {}
    for size in range(0, len(leaves), step):
        edge = {level: hashes for (level, _), hashes in sorted(tiles.items())}
        partial = {level: h for level, h in edge.items() if len(h) < WIDTH * HASH}
        for level, number, hashes in grown(partial, size, leaves[size : size + step]):
            tiles[level, number] = hashes
    return reading(lambda level, number: tiles.get((level, number), b""))


def library(n: int) -> InmemoryTree:
    tree = InmemoryTree(algorithm="sha256")
    for i in range(n):
        tree.append_entry(f"leaf {i}".encode())
    return tree


@pytest.fixture(scope="module")
def stored() -> Read:
    return tree_of(hashes_of(1000))


@pytest.fixture(scope="module")
def theirs() -> InmemoryTree:
    return library(1000)


@pytest.mark.parametrize(("size", "root"), ROOTS.items())
def test_roots_are_those_of_certificate_transparency(size: int, root: str) -> None:
    frontier = Frontier()
    frontier.extend(leaf_hash(data) for data in LEAVES[:size])
    assert frontier.root().hex() == root


def test_an_empty_tree_has_a_root() -> None:
    assert Frontier().root() == EMPTY == sha256(b"").digest()


@pytest.mark.parametrize("size", SIZES)
def test_roots_agree_with_an_independent_library(
    stored: Read, theirs: InmemoryTree, size: int
) -> None:
    assert root_of(stored, size) == theirs.get_root(size)


@pytest.mark.parametrize("step", [1, 7, 255, 256, 257, 70_000])
def test_tiles_are_the_same_however_the_tree_grew(step: int) -> None:
    leaves = hashes_of(70_000 if step > 255 else 600)
    frontier = Frontier()
    frontier.extend(leaves)
    assert root_of(tree_of(leaves, step), len(leaves)) == frontier.root()


@pytest.mark.parametrize("size", SIZES)
def test_a_frontier_goes_on_from_a_stored_tree(stored: Read, size: int) -> None:
    frontier = Frontier.of(stored, size)
    copy = Frontier(frontier.size, frontier.hashes)
    copy.extend(hashes_of(1000)[size:])
    assert copy.root() == root_of(stored, 1000)
    assert len(frontier.hashes) == size.bit_count()


def test_a_frontier_wants_as_many_hashes_as_its_size_says() -> None:
    with pytest.raises(ValueError, match="7 leaves has 3"):
        Frontier(7, [EMPTY])


@pytest.mark.parametrize("size", SIZES)
def test_every_leaf_is_proven(stored: Read, size: int) -> None:
    root, leaves = root_of(stored, size), hashes_of(size)
    for index in {*range(0, size, 1 + size // 20), size - 1}:
        proof = inclusion_proof(stored, index, size)
        verify_inclusion(leaves[index], index, size, root, proof)
        assert root_from_inclusion(leaves[index], index, size, proof) == root


@pytest.mark.parametrize("size", [7, 8, 257, 1000])
def test_inclusion_proofs_agree_with_the_library(
    stored: Read, theirs: InmemoryTree, size: int
) -> None:
    for index in {0, 1, size // 2, size - 1}:
        path = theirs.prove_inclusion(index + 1, size).path
        assert inclusion_proof(stored, index, size) == path[1:]  # theirs begins with the leaf


@pytest.mark.parametrize("new", SIZES)
def test_every_older_tree_is_proven(stored: Read, new: int) -> None:
    for old in {0, 1, *(s for s in SIZES if s <= new), new // 2, new - 1, new}:
        roots = root_of(stored, old), root_of(stored, new)
        verify_consistency(old, roots[0], new, roots[1], consistency_proof(stored, old, new))


def test_a_known_consistency_proof_is_found() -> None:
    tree = tree_of([leaf_hash(data) for data in LEAVES])
    assert [h.hex() for h in consistency_proof(tree, 6, 8)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@pytest.mark.parametrize("size", [2, 3, 7, 8, 257])
def test_a_changed_inclusion_proof_is_refused(stored: Read, size: int) -> None:
    root, leaves = root_of(stored, size), hashes_of(size)
    for index in {0, size // 2, size - 1}:
        proof = inclusion_proof(stored, index, size)
        for wrong in spoilt(proof):
            with pytest.raises(BrokenLedger):
                verify_inclusion(leaves[index], index, size, root, wrong)
        for place, leaf in ((index, EMPTY), ((index + 1) % size, leaves[index]), (size, EMPTY)):
            with pytest.raises(BrokenLedger):
                verify_inclusion(leaf, place, size, root, proof)


@pytest.mark.parametrize(
    ("old", "new"), [(1, 2), (2, 3), (4, 8), (6, 8), (7, 8), (255, 257), (256, 257), (3, 1000)]
)
def test_a_changed_consistency_proof_is_refused(stored: Read, old: int, new: int) -> None:
    roots, proof = (root_of(stored, old), root_of(stored, new)), consistency_proof(stored, old, new)
    for wrong in spoilt(proof):
        with pytest.raises(BrokenLedger):
            verify_consistency(old, roots[0], new, roots[1], wrong)
    for older, newer in ((EMPTY, roots[1]), (roots[0], EMPTY), roots[::-1]):
        with pytest.raises(BrokenLedger):
            verify_consistency(old, older, new, newer, proof)


def test_no_proof_makes_up_for_wrong_ends(stored: Read) -> None:
    one, two = root_of(stored, 1), root_of(stored, 2)
    for ends in ((2, two, 1, one), (0, one, 2, two), (2, two, 2, one), (0, EMPTY, 0, one)):
        with pytest.raises(BrokenLedger):
            verify_consistency(*ends, [])
    for ends in ((0, EMPTY, 2, two), (2, two, 2, two)):
        verify_consistency(*ends, [])
        with pytest.raises(BrokenLedger):
            verify_consistency(*ends, [one])


def test_a_tile_that_was_shortened_is_named() -> None:
    tree = reading(lambda level, number: b"".join(hashes_of(3)))
    with pytest.raises(BrokenLedger, match="Tile 0 of level 0 of the ledger lacks hash 3"):
        tree(2, 0)


def test_tiles_at_the_edge_must_fit_the_size() -> None:
    with pytest.raises(BrokenLedger, match="has 2 hashes, but a tree of 3 leaves has 3"):
        list(grown({0: b"".join(hashes_of(2))}, 3, hashes_of(1)))


def test_the_example_of_the_tiles_specification_holds() -> None:
    wide = [place for place in places(0, 70_000) if place.width < WIDTH]
    assert wide == [(0, 273, 112), (1, 1, 17), (2, 0, 1)]
    assert len(list(places(0, 70_000))) == 274 + 2 + 1
    assert list(places(255, 256)) == [(0, 0, 256), (1, 0, 1)]


def test_a_node_is_hashed_unlike_a_leaf() -> None:
    assert node_hash(EMPTY, EMPTY) != leaf_hash(EMPTY + EMPTY)
    assert split(EMPTY + EMPTY) == [EMPTY, EMPTY]


def spoilt(proof: list[bytes]) -> list[list[bytes]]:
    """Proofs that are too short, too long, in another order or of another bit."""
    other = bytes([proof[-1][0] ^ 1]) + proof[-1][1:]
    swapped = [] if len(proof) < 2 else [[proof[1], proof[0], *proof[2:]]]
    return [proof[:-1], proof[1:], [*proof, EMPTY], [EMPTY, *proof], [*proof[:-1], other], *swapped]
