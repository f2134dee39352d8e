"""Builds the sprite atlases of the demo's pictograms from emoji sets.

    python -m filter_service.demo.build_atlases --noto NotoColorEmoji.ttf --twemoji DIR --fluent DIR

`--twemoji` is the unpacked npm package `@twemoji/svg`, `--fluent` that of
`@iconify-json/fluent-emoji-flat`. Needs resvg-py besides the service's own packages. Licences:
SPRITES_LICENSE.md.
"""

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path

import resvg_py
from PIL import Image, ImageDraw, ImageFont

from filter_service.demo.kinds import ALL
from filter_service.demo.scenes import CELL, COLUMNS

Draw = Callable[[str], Image.Image]  # code point in hexadecimal -> RGBA picture of any size


def noto(font: Path) -> Draw:
    """Glyphs of a colour font with bitmaps of 109 pixels an em."""
    face = ImageFont.truetype(str(font), 109)

    def draw(code: str) -> Image.Image:
        picture = Image.new("RGBA", (200, 200))
        ImageDraw.Draw(picture).text((20, 20), chr(int(code, 16)), font=face, embedded_color=True)
        return picture

    return draw


def twemoji(folder: Path) -> Draw:
    """One SVG file a code point."""
    return lambda code: _rasterise((folder / f"{code}.svg").read_text())


def fluent(folder: Path) -> Draw:
    """Iconify's JSON: names by code point, bodies by name."""
    icons = json.loads((folder / "icons.json").read_text())
    names = json.loads((folder / "chars.json").read_text())

    def draw(code: str) -> Image.Image:
        name = names.get(code) or names[f"{code}-fe0f"]
        icon = icons["icons"].get(name) or icons["icons"][icons["aliases"][name]["parent"]]
        side = icon.get("width", icons.get("width", 32))
        frame = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}"'
        return _rasterise(f"<svg {frame}>{icon['body']}</svg>")

    return draw


def build(draw: Draw) -> Image.Image:
    """All kinds in one RGBA picture, COLUMNS cells of CELL pixels a row."""
    rows = -(-len(ALL) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for i, (_, code) in enumerate(ALL):
        atlas.paste(_fit(draw(code)), (i % COLUMNS * CELL, i // COLUMNS * CELL))
    return atlas


def _rasterise(svg: str) -> Image.Image:
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=256, height=256))
    return Image.open(io.BytesIO(png)).convert("RGBA")


def _fit(picture: Image.Image) -> Image.Image:
    """Crop to what is drawn, scale the longer side to CELL, centre."""
    picture = picture.crop(picture.getbbox())
    scale = CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(
        picture.resize(size, Image.Resampling.LANCZOS),
        ((CELL - size[0]) // 2, (CELL - size[1]) // 2),
    )
    return cell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--noto", type=Path, required=True, help="NotoColorEmoji.ttf")
    parser.add_argument("--twemoji", type=Path, required=True, help="folder of SVG files")
    parser.add_argument("--fluent", type=Path, required=True, help="folder with icons.json")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "sprites")
    options = parser.parse_args()
    options.out.mkdir(exist_ok=True)
    for name, draw in (
        ("noto", noto(options.noto)),
        ("twemoji", twemoji(options.twemoji)),
        ("fluent", fluent(options.fluent)),
    ):
        build(draw).save(options.out / f"{name}.webp", quality=88, method=6)


if __name__ == "__main__":
    main()
