"""Pixels that are decoded at the same time are bounded, however many threads decode."""

import hashlib
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PIL.Image
import psutil
import pytest

from filter_service import load_encoder
from filter_service.images import Limits, pixel_budget
from filter_service.images.decoding import pixels_in
from filter_service.images.pixel_budget import PixelBudget
from filter_service.pipeline.subject import prepare
from filter_service.rendering import renditions
from filter_service.storage import Storage

PLENTY = 10.0  # seconds


def png(width: int, height: int, frames: int = 1) -> bytes:
    file = io.BytesIO()
    pictures = [PIL.Image.new("RGB", (width, height), (i, 90, 200)) for i in range(frames)]
    pictures[0].save(file, "PNG", save_all=frames > 1, append_images=pictures[1:])
    return file.getvalue()


@pytest.mark.parametrize(("each", "together"), [(60, 1), (30, 3), (1000, 1)])
def test_no_more_pixels_are_held_than_there_are(each: int, together: int) -> None:
    shared, lock = PixelBudget(100), threading.Lock()
    held = most = 0

    def hold(_: int) -> None:
        nonlocal held, most
        with shared.reserved(each):
            with lock:
                held += 1
                most = max(most, held)
            time.sleep(0.01)
            with lock:
                held -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(hold, range(16)))
    assert most == together


def test_a_failure_gives_its_pixels_back() -> None:
    shared = PixelBudget(100)
    with pytest.raises(ValueError), shared.reserved(100):
        raise ValueError
    with shared.reserved(100):
        pass


@pytest.mark.parametrize(
    ("data", "pixels"), [(png(40, 30), 1200), (png(40, 30, 3), 4800), (png(400, 300), 5000)]
)
def test_an_image_counts_with_the_frames_that_it_may_keep(data: bytes, pixels: int) -> None:
    assert pixels_in(data, Limits(max_pixels=5000, max_frames=4)) == pixels


@pytest.mark.parametrize("who", ["worker", "page"])
def test_decoding_waits_for_pixels(
    who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_budget, "_shared", PixelBudget(1000))
    encoder = load_encoder("bundled", device="cpu")
    storage = Storage(f"file://{tmp_path}")
    digest = hashlib.sha256(data := png(40, 30)).hexdigest()
    storage.put(digest, data)
    work = {
        "worker": lambda: prepare(storage.get(digest), encoder),
        "page": lambda: renditions.points(storage, digest, 0, Limits()),
    }[who]
    with ThreadPoolExecutor(1) as threads:
        with pixel_budget._shared.reserved(1000):
            waiting = threads.submit(work)
            time.sleep(0.3)
            assert not waiting.done()
        waiting.result(timeout=PLENTY)


def test_threads_keep_nothing_of_large_images() -> None:
    data, encoder = png(5000, 5000), load_encoder("bundled", device="cpu")
    prepare(data, encoder)
    before = psutil.Process().memory_info().rss
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: prepare(data, encoder), range(3)))
    kept = psutil.Process().memory_info().rss - before
    assert kept < 400e6  # bytes; 190e6 here, 860e6 in blocks of the usual size
