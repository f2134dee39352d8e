"""Of an animation those frames are judged that are shown for long, and those that differ."""

import numpy as np
import PIL.Image
import pytest

from filter_service.images import Image, Limits, decode
from tests.support.bad_files import SIZE, encoded, still

GREY, RED, BLUE = (120, 120, 120), (250, 10, 10), (10, 10, 250)
SOME = Limits(max_frames=8)


def moving(
    count: int, odd: dict[int, tuple[int, int, int]], times: dict[int, int], form: str = "GIF"
) -> bytes:
    """Frames of one grey, some of other colours, each 100 ms unless told."""
    frames = [PIL.Image.new("RGB", SIZE, odd.get(n, (120, 120, n % 2))) for n in range(count)]
    durations = [times.get(n, 100) for n in range(count)]
    more = {"save_all": True, "append_images": frames[1:], "duration": durations}
    return encoded(frames[0], form, **more, **({"lossless": True} if form == "WEBP" else {}))


def kept(image: Image) -> list[int]:
    return [f.number for f in image.frames]


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
@pytest.mark.parametrize("place", [1, 17, 38, 58])
def test_a_frame_that_is_shown_for_long_is_judged(form: str, place: int) -> None:
    """Among sixty, for ten of eleven seconds."""
    image = decode(moving(60, {}, dict.fromkeys(range(60), 17) | {place: 10_000}, form), SOME)
    assert place in kept(image)
    assert len(kept(image)) == 8


@pytest.mark.parametrize("place", range(1, 40, 3))
def test_a_frame_that_differs_is_judged_however_short_it_is_shown(place: int) -> None:
    assert place in kept(decode(moving(40, {place: RED}, {place: 20}), SOME))


def test_a_small_thing_that_appears_is_a_difference() -> None:
    frames = [PIL.Image.new("RGB", (320, 240), GREY) for _ in range(40)]
    for number, frame in enumerate(frames):  # something moves in all of them
        frame.paste((130, 120, 120), (8 * number, 0, 8 * number + 8, 240))
    frames[23].paste(RED, (100, 100, 120, 120))
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    assert 23 in kept(decode(data, SOME))


def test_the_first_frame_is_always_judged_and_the_last_one_stays() -> None:
    image = decode(moving(50, {20: RED, 30: BLUE}, {}), Limits(max_frames=2))
    assert kept(image) == [0, 49]
    assert kept(decode(moving(50, {20: RED}, {20: 9_000}), Limits(max_frames=1))) == [0]


def test_the_choice_is_the_same_every_time() -> None:
    data = encoded(
        still(0), "WEBP", save_all=True, append_images=[still(n) for n in range(1, 40)], duration=40
    )
    assert kept(decode(data, SOME)) == kept(decode(data, SOME))


def test_a_frame_chosen_among_many_is_decoded_as_it_is_alone() -> None:
    data = moving(40, {7: RED, 21: BLUE}, {})
    for frame in decode(data, SOME).frames:
        (alone,) = decode(data, only=frame.number).frames
        assert (alone.number, alone.picture.tobytes()) == (frame.number, frame.picture.tobytes())


def test_all_the_time_is_seen_where_all_frames_are_judged() -> None:
    assert decode(moving(8, {3: RED}, {}), SOME).seen_time == 1


def test_the_time_of_frames_that_look_alike_is_seen() -> None:
    assert decode(moving(40, {7: RED, 21: BLUE}, {}), SOME).seen_time == 1


def test_the_time_of_frames_that_nobody_looked_at_is_not() -> None:
    colours = {n: tuple(np.random.default_rng(n).integers(0, 256, 3).tolist()) for n in range(40)}
    image = decode(moving(40, colours, {}), SOME)
    assert image.seen_time == pytest.approx(8 / 40)


def test_what_asks_for_no_time_is_shown_for_a_tenth_of_a_second() -> None:
    """As browsers do it; else one frame of many seconds would hide all of those."""
    colours = {n: tuple(np.random.default_rng(n).integers(0, 256, 3).tolist()) for n in range(40)}
    image = decode(moving(40, colours, dict.fromkeys(range(40), 0)), SOME)
    assert image.seen_time == pytest.approx(8 / 40)
