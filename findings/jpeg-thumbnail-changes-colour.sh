#!/usr/bin/env bash
# Pillow makes two thumbnails of one JPEG, of different colours, depending on load().
#
# Expected: `Image.thumbnail` of a picture that was opened and of one that was loaded before give
#   the same picture but for sharpness. The reference says that JPEGs are then decoded at reduced
#   size, at twice what is needed or more, for speed.
# Happens: stripes of red and white, two pixels wide and stored with 4:2:0 chroma, as most JPEGs
#   are, lose a tenth of their red when decoded in full and nothing when decoded at reduced size.
#   In full, each pixel gets the chroma of its neighbours too, leaves 0 to 255, and is clipped
#   before the means are made; at reduced size, means are made before anything is clipped. With
#   4:4:4 both are the same. Headroom does not help: half the size differs as much as an eighth.
# Version: Pillow 13.0.0 with the libjpeg-turbo in its wheel.
# Source: Pillow's reference of `Image.draft` and of `reducing_gap` in `Image.thumbnail`;
#   libjpeg-turbo's manual on scaled decoding, and its "fancy" upsampling of chroma.
# Matters: a classifier that is trained on one kind and served the other, or a first look at reduced
#   size that is to stand for the exact one, is off wherever fine patterns are saturated; we took
#   the network's low precision for the culprit.
# To do: decode the same way in training and in service; where a reduced look is only the first one,
#   measure its error on fine, saturated textures and decode in full within that band.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq pillow==13.0.0
"$folder/venv/bin/python" - <<'END'
import io
import sys

from PIL import Image, ImageStat, features

RED, WHITE, SIDE = (255, 0, 0), (255, 255, 255), 1792
row = bytes((RED * 2 + WHITE * 2) * (SIDE // 4))
stripes = Image.frombytes("RGB", (SIDE, SIDE), row * SIDE)


def red(subsampling: str, loaded: bool) -> float:
    file = io.BytesIO()
    stripes.save(file, "JPEG", quality=90, subsampling=subsampling)
    picture = Image.open(file)
    if loaded:
        picture.load()
    picture.thumbnail((224, 224))
    return ImageStat.Stat(picture).mean[0]


print("Pillow", Image.__version__, "libjpeg-turbo", features.version("libjpeg_turbo"))
print("expected: thumbnails as red as the picture, 255, loaded before or not")
apart = {}
for subsampling in ("4:4:4", "4:2:0"):
    opened, loaded = red(subsampling, False), red(subsampling, True)
    apart[subsampling] = opened - loaded
    print(f"seen, {subsampling}: opened {opened:.0f}, loaded before {loaded:.0f}")
sys.exit(not (apart["4:2:0"] > 15 and abs(apart["4:4:4"]) < 3))
END
