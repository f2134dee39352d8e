#!/usr/bin/env bash
# Pictures that were decoded in threads and freed again keep all their memory.
#
# Expected: large pictures are freed when nothing refers to them, and the process shrinks; glibc
#   takes large blocks from the kernel one by one and gives each back.
# Happens: Pillow asks for blocks of 16 MiB. The first that is freed teaches glibc to keep blocks of
#   this size, its threshold moving up to 32 MiB at most, so that from then on they are cut out of
#   the thread's own arena and stay resident there. Every decoding thread keeps the memory of its
#   largest picture, and `Image.core.get_stats` counts nothing, since Pillow did free it.
# Version: Pillow 13.0.0 on glibc (seen on 2.36).
# Source: Pillow's "Block allocator" page (PILLOW_BLOCK_SIZE); mallopt's manual on the dynamic
#   M_MMAP_THRESHOLD; arenas in glibc's malloc.
# Matters: a worker with eight decoding threads that once met pictures of 100 megapixels holds
#   gigabytes for ever, and looks like a leak in one's own code.
# To do: blocks above 32 MiB are always given back: PILLOW_BLOCK_SIZE=64m, or
#   `Image.core.set_block_size` before the first picture. What is left of a picture in a last block
#   below 32 MiB stays.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq pillow==13.0.0
cat > "$folder/kept.py" <<'END'
"""Prints what share of the memory of freed pictures is still resident."""
import io
import threading

from PIL import Image

THREADS, SIDE = 4, 4000
file = io.BytesIO()
Image.new("RGB", (SIDE, SIDE), "teal").save(file, "JPEG")
turn = threading.Barrier(THREADS + 1)


def resident() -> int:
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))


def work() -> None:
    for _ in range(2):
        picture = Image.open(io.BytesIO(file.getvalue()))
        picture.load()
        turn.wait()  # all are decoded
        turn.wait()
        del picture
        turn.wait()  # all are freed
        turn.wait()


before = resident()
threads = [threading.Thread(target=work) for _ in range(THREADS)]
for thread in threads:
    thread.start()
for _ in range(2):
    turn.wait()
    most = resident() - before
    turn.wait()
    turn.wait()
    kept = resident() - before
    turn.wait()
for thread in threads:
    thread.join()
print(f"{kept / most:.2f}")
END
unset MALLOC_ARENA_MAX MALLOC_MMAP_THRESHOLD_ MALLOC_TRIM_THRESHOLD_ GLIBC_TUNABLES \
  PILLOW_BLOCK_SIZE
python="$folder/venv/bin/python"
"$python" -c 'import PIL, platform; print("Pillow", PIL.__version__, *platform.libc_ver())'
usual=$("$python" "$folder/kept.py")
larger=$(PILLOW_BLOCK_SIZE=64m "$python" "$folder/kept.py")
echo "expected: next to nothing of four freed pictures stays resident while their threads live"
echo "seen: a share of $usual stays, with blocks of 64 MiB $larger"
"$python" -c "raise SystemExit(not ($usual > 0.6 and $larger < 0.2))"
