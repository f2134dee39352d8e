#!/usr/bin/env bash
# Pillow neither applies nor mentions the colours that an AVIF states in its nclx box.
#
# Expected: what a file says about its colours is in `info` after opening, and goes along when the
#   picture is saved, as an ICC profile in the same file does.
# Happens: `info` has no trace of it, and the copy says sRGB. A picture in Display P3 without an ICC
#   profile, which is how encoders for video store it, comes out paler, with the same samples.
# Version: Pillow 13.0.0 with the libavif in its wheel.
# Source: Pillow's page on AVIF lists what opening puts into `info`, and colour codes are not
#   among it; the codes are ITU-T H.273's, the box is HEIF's "colr" of type "nclx".
# Matters: a judge that decodes with Pillow sees other colours than a browser shows, and re-encoding
#   for storage changes how a picture looks; no warning, and nothing left to find it by.
# To do: read the box in the file oneself, and convert or refuse before anything is stored.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq pillow==13.0.0
"$folder/venv/bin/python" - <<'END'
import io
import struct
import sys

from PIL import Image, ImageCms, features

SRGB, P3 = (1, 13), (12, 13)  # primaries and transfer curve, by their numbers in H.273
BOX = b"colrnclx"


def saved(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "AVIF", quality=100, **options)
    return file.getvalue()


def codes(data: bytes) -> tuple[int, ...]:
    return struct.unpack_from(">HH", data, data.index(BOX) + len(BOX))


def in_p3(data: bytes) -> bytes:
    start = data.index(BOX) + len(BOX)
    return data[:start] + struct.pack(">HH", *P3) + data[start + 4 :]


plain = Image.new("RGB", (64, 64), (200, 100, 60))
stated = in_p3(saved(plain))
opened = Image.open(io.BytesIO(stated))
told = sorted(opened.info)
copied = codes(saved(opened))

profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
embedded = Image.open(io.BytesIO(saved(plain, icc_profile=profile)))
kept = Image.open(io.BytesIO(saved(embedded))).info.get("icc_profile") == profile

print("Pillow", Image.__version__, "libavif", features.version("avif"))
print(f"expected: a file that states {codes(stated)} is told so in `info`, and so is its copy")
print(f"seen: `info` has {told}; the copy states {copied}; an ICC profile is kept: {kept}")
sys.exit(not (codes(stated) == P3 and copied == SRGB and kept and not {"nclx", "cicp"} & {*told}))
END
