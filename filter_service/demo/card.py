"""The text of the bundled model's card, around its measured figures."""

from typing import Any

from filter_service.demo.kinds import KINDS

GOALS = {
    ("recognition, trained styles", "1 object, all among the top 1"): 98.0,
    ("recognition, trained styles", "2 objects, all among the top 3"): 85.0,
    ("moderation, trained styles", "right verdict (flagged or clear)"): 95.0,
}
"""What the model was meant to reach on the test split, in per cent."""

TABLE = "| figure | share | counts | 95 % interval |\n|---|---|---|---|\n"

CARD = """\
# The bundled model

**It knows pictograms, not photographs.** It ships so that the demo and the tests need no
download. On a photograph its answers mean nothing. For photographs set the model to, for example,
`ViT-B-32` with `laion2b_s34b_b79k`, which open_clip downloads on first use, and choose your own
thresholds.

## What it is

An open_clip `CLIP`: images of 64 x 64 pixels in patches of 8, width 128, 6 layers, 2 heads; texts
of at most 24 tokens, width 96, 3 layers, 4 heads; {kinds} kinds of object; shared vectors of 128.
Weights in float16, open_clip's own folder format, `local-dir:filter_service/demo/model`. An image
is squeezed to a square, nothing is cropped.

## Training

Scenes of 1 to 4 pictograms in two styles (Noto Emoji, Twemoji), drawn afresh for every step and
never shown twice; captions name kinds, pairs, background, size, place and relation. No
photograph, no person, no collected data. Loss: contrastive, every caption that is true of an
image is one of its positives. The first 1,000 steps see mostly single objects.

- command: `{command}`
- {steps} steps of {batch} scenes, seed {seed}, {minutes} minutes on {machine}
- {reproducing}

A second stage taught the texts one word. The first sees no empty ground and no piece of a thing,
and took such places for weapons (38 % of empty grounds). The word is "empty"; its vector was fitted
to {looks} looks: squares, windows of pages, empty grounds, some with places hidden, where what is
seen by less than about half is not there. The image tower and all other words stayed as they were.

- command: `{second_command}`
- {second_steps} steps, {second_minutes} minutes on the same machine

The drawings' licences are in `SPRITES_LICENSE.md`; the code and the weights are under the licence
of the repository.

## Splits

By seed: training takes seeds from 50,000,000 a unit of `--seed`, its second stage from
600,000,000, development from 900,000,000, the sample images from 990,000,000, testing from
1,000,000,000. No seed serves two purposes. The same sprites appear in all of them: what the test
split measures is new arrangements of drawings that were seen. Transfer to drawings that were not is
measured by the third style, Fluent Emoji Flat, which was kept out of training, development and
samples.

## Figures

Test split; each scene drawn at 384 px, saved as JPEG, read back. Recognition is zero-shot among
all {kinds} kinds, with the templates of the demo's policy. Moderation is at the thresholds of
`policy.yaml`, chosen on development scenes; one scene in three holds one forbidden object among
up to two others.

{goals}
{tables}
## Limits

- The edge of a thing is still taken for another now and then: of pages twice and four times as long
  as wide with one ordinary thing, 3 % and 10 % are flagged (`docs/views.md`).
- Objects smaller than a fifth of the side, four and more objects, and heavy overlap were rare or
  absent in training.
- The figure for relations says how far "left of" and "above" may be trusted: near 50 %, not at
  all. Colours of the background are part of the captions, colours of objects are not.
- "gun" is drawn as today's emoji sets draw it, a toy or water pistol; "sword" is a pair of
  crossed swords.
- Thresholds hold for this model and these scenes. Nothing here was calibrated on real content.
- Nothing about people was in the data; the model says nothing about them.

Written by `python -m filter_service.demo.evaluate`.
"""


def card(tables: dict[str, dict[str, str]], facts: dict[str, Any]) -> str:
    """The card; a row's text is already 'share | counts | interval'."""
    parts = [
        f"### {title[0].upper()}{title[1:]}\n\n{TABLE}"
        + "".join(f"| {name} | {row} |\n" for name, row in rows.items())
        for title, rows in tables.items()
    ]
    return CARD.format(kinds=len(KINDS), goals=_goals(tables), tables="\n".join(parts), **facts)


def _goals(tables: dict[str, dict[str, str]]) -> str:
    """What was aimed at, what was reached, and whether that is enough."""
    lines = ["### Goals\n\n| figure | goal | reached | |\n|---|---|---|---|\n"]
    for (title, row), goal in GOALS.items():
        reached = tables[title][row].split(" | ")[0]
        verdict = "met" if float(reached.rstrip("%")) >= goal else "**missed**"
        lines.append(f"| {title}: {row} | {goal:.0f}% | {reached} | {verdict} |\n")
    return "".join(lines)
