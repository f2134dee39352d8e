#!/usr/bin/env bash
# numpy sums equal arrays along the same axis to different bits, by how they lie in memory.
#
# Expected: a sum along the first axis of a C-ordered array adds row after row, as the same loop in
#   C does; in float32 the order decides the last bits. Making the terms as a product of two arrays
#   does not change how they are added.
# Happens: elementwise operations keep the layout of their inputs (order="K"). If one of them is a
#   transposed view, so is the result, though its shape does not show it; the axis that is summed
#   then is the one that lies together, and numpy adds it pairwise instead. `np.array_equal` says
#   that both arrays are the same.
# Version: numpy 2.4.6.
# Source: numpy's reference of `sum` on pairwise summation, which is used along the fast axis only;
#   that of universal functions on the argument `order`.
# Matters: perceptual hashes compare frequencies with their median, so that a rounding turns a bit;
#   hashes that are to equal another program's, and records that are replayed to the bit, change
#   when somebody transposes an input.
# To do: give `order="C"` (or `np.ascontiguousarray`) wherever terms are made whose sum must be the
#   same to the bit, and test with inputs in both layouts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq numpy==2.4.6
"$folder/venv/bin/python" - <<'END'
import sys

import numpy as np

rng = np.random.default_rng(0)
weights = rng.standard_normal((16, 64), dtype=np.float32)  # as a cosine transform's: (n, k)
grid = rng.standard_normal((64, 64), dtype=np.float32)  # (k, m)

usual = weights.T[:, :, None] * grid[:, None]  # (k, n, m)
turned = weights.T[:, :, None] * np.asfortranarray(grid)[:, None]  # of equal numbers
rows = np.zeros((16, 64), np.float32)
for terms in usual:  # one after the other
    rows += terms

same = np.array_equal(usual, turned)
one, other = usual.sum(axis=0), turned.sum(axis=0)
unequal = [int((s != rows).sum()) for s in (one, other)]
print("numpy", np.__version__)
print("expected: terms that are equal have equal sums, those of adding row after row")
print(f"seen: terms equal: {same}; of {rows.size} sums, unequal to adding row after row:")
print(f"  {unequal[0]} with a C-ordered grid, {unequal[1]} with a Fortran-ordered one")
print(f"  layouts of the terms, bytes from one to the next: {usual.strides}, {turned.strides}")
sys.exit(not (same and unequal[0] == 0 and unequal[1] > rows.size // 2))
END
