#!/usr/bin/env bash
# Chromium shows the same colours, stated by the same numbers, differently in PNG and in AVIF.
#
# Expected: PNG's cICP chunk and AVIF's nclx box both name primaries and curve by their numbers in
#   ITU-T H.273, so that equal samples with equal numbers look alike.
# Happens: curve 1 (BT.709) is shown in a PNG as that of a video screen, a gamma of 2.4, and in an
#   AVIF as if it were sRGB's; 14 (BT.2020) likewise. Shadows come out a dozen levels darker in the
#   PNG. Curve 13 (sRGB) looks the same in both.
# Version: Chromium 150 (Debian), which must be on the PATH; files by Pillow 13.0.0.
# Source: the PNG specification, third edition, on cICP; H.273's table of transfer characteristics;
#   seen, not read.
# Matters: who judges pictures by what viewers show cannot have one table of curves: it depends on
#   the format. Lossless re-encoding that hands on the numbers changes how a picture looks.
# To do: keep the table per format, compare it with what a browser paints, and store as sRGB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
browser=$(command -v chromium || command -v chromium-browser) || {
  echo "There is no chromium on the PATH; install your system's package and run this again."
  exit 1
}
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq pillow==13.0.0
cat > "$folder/files.py" <<'END'
"""Writes the files, and a page that shows them side by side."""
import io
import struct
import zlib
from pathlib import Path

from PIL import Image

COLOUR, SIDE = (40, 80, 120), 64
FILES = [("png", 13), ("avif", 13), ("png", 1), ("avif", 1)]


def png(curve: int) -> bytes:
    """With a cICP chunk: primaries of sRGB, this curve, RGB, full range."""
    file, body = io.BytesIO(), b"cICP" + bytes([1, curve, 0, 1])
    Image.new("RGB", (SIDE, SIDE), COLOUR).save(file, "PNG")
    chunk = struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body))
    data, after_header = file.getvalue(), 8 + 25
    return data[:after_header] + chunk + data[after_header:]


def avif(curve: int) -> bytes:
    """With an nclx box that says the same."""
    file, box = io.BytesIO(), b"colrnclx"
    picture = Image.new("RGB", (SIDE, SIDE), COLOUR)
    picture.save(file, "AVIF", quality=100, subsampling="4:4:4")
    data = file.getvalue()
    start = data.index(box) + len(box)
    return data[:start] + struct.pack(">HH", 1, curve) + data[start + 4 :]


page = "<body style='margin: 0; display: flex'>"
for kind, curve in FILES:
    Path(f"{curve}.{kind}").write_bytes(png(curve) if kind == "png" else avif(curve))
    page += f"<img src='{curve}.{kind}'>"
Path("page.html").write_text(page)
END
cat > "$folder/compare.py" <<'END'
import sys

from files import COLOUR, FILES, SIDE
from PIL import Image

shot = Image.open("shot.png").convert("RGB")
middles = [(SIDE * place + SIDE // 2, SIDE // 2) for place in range(len(FILES))]
seen = {file: shot.getpixel(at) for file, at in zip(FILES, middles, strict=True)}


def apart(curve: int) -> int:
    pairs = zip(seen["png", curve], seen["avif", curve], strict=True)
    return max(abs(one - other) for one, other in pairs)


print(f"expected: samples {COLOUR}; both formats look alike under either curve")
for (kind, curve), colour in seen.items():
    print(f"seen, {kind} with curve {curve}: {colour}")
sys.exit(not (apart(13) <= 2 and apart(1) >= 5))
END
cd "$folder"
export HOME="$folder"
venv/bin/python files.py
options=(--headless --disable-gpu --hide-scrollbars --force-color-profile=srgb)
[ "$(id -u)" -ne 0 ] || options+=(--no-sandbox) # root gets no sandbox
"$browser" --version 2> /dev/null
timeout 120 "$browser" "${options[@]}" --user-data-dir="$folder/profile" --window-size=256,64 \
  --screenshot="$folder/shot.png" "file://$folder/page.html" 2> "$folder/said" || {
  cat "$folder/said"
  exit 1
}
venv/bin/python compare.py
