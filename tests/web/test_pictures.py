"""What a browser gets of an image: next to nothing before it is revealed, never its own bytes."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from filter_service import accounts
from filter_service.accounts import Role
from filter_service.db.session import Sessions
from filter_service.images import Limits, digest
from filter_service.rendering import renditions
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from filter_service.verdicts.explanation import FlipRegion
from filter_service.web.app import create_app
from tests.support.explained_items import Pictured, coloured, noisy, stored
from tests.support.explanation_records import map_of, record
from tests.support.proofs import FAILED
from tests.support.web_clients import client_of, key_client, somebody, web_service

GIF = "GIF"


@pytest.fixture
def app(sessions: Sessions, storage: Storage) -> FastAPI:
    return create_app(web_service(sessions, storage))


@pytest.fixture
def browser(app: FastAPI, sessions: Sessions) -> TestClient:
    return client_of(app, sessions, Role.MODERATOR)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def pixels(data: bytes, mode: str = "RGB") -> npt.NDArray[np.float32]:
    return np.asarray(opened(data).convert(mode), dtype=np.float32)


def explained(**changes: object) -> dict[str, object]:
    return {"gun": record(class_name="gun", **changes)}


def only(sessions: Sessions, storage: Storage, data: bytes | None = None, **changes: object) -> int:
    """One flagged item with an explanation."""
    shown = coloured() if data is None else data
    return stored(sessions, storage, Pictured(shown, records=explained(**changes)))[0]  # type: ignore[arg-type]


def test_a_blurred_picture_is_grey_and_keeps_its_shape(
    browser: TestClient, sessions: Sessions, storage: Storage
) -> None:
    item = only(sessions, storage, noisy(0))
    answer = browser.get(f"/pictures/{item}/blurred")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert (opened(answer.content).mode, opened(answer.content).size) == ("L", (480, 240))


def test_points_are_not_remembered_for_long(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noisy(0)
    storage.put(digest(data), data)
    monkeypatch.setattr(renditions, "FORGOTTEN_AFTER", 1e12)
    renditions.forget_erased("the same")
    renditions.points(storage, digest(data), 0, Limits())
    renditions.forget_erased("the same")
    assert renditions.points.cache_info().currsize == 1
    monkeypatch.setattr(renditions, "FORGOTTEN_AFTER", 1e-6)
    renditions.forget_erased("the same")  # as some time later
    assert renditions.points.cache_info().currsize == 0


def test_a_blurred_picture_is_made_from_its_points_and_nothing_else(storage: Storage) -> None:
    checks = np.indices((160, 320)).sum(axis=0) % 2 * 200
    pictures = []
    for fine in (checks, 200 - checks):  # other pixels, the same mean in every block
        file = io.BytesIO()
        Image.fromarray(fine.astype(np.uint8)).save(file, "PNG")
        storage.put(digest(file.getvalue()), file.getvalue())
        known = renditions.points(storage, digest(file.getvalue()), 0, Limits())
        assert max(known.grey.size) == renditions.POINTS <= 24
        pictures.append(renditions.blurred(known))
    assert pictures[0] == pictures[1]


def test_nothing_that_the_file_says_about_itself_is_passed_on(
    browser: TestClient, sessions: Sessions, storage: Storage
) -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    exif[0x0112] = 6  # lies on its side
    data = coloured(exif=exif.tobytes(), comment=b"a secret", icc_profile=b"a profile" * 20)
    item = only(sessions, storage, data)
    accounts.reveal(sessions, somebody(sessions, Role.MODERATOR), item, "gun", None)
    for kind in ("blurred", "thumbnail", "original"):
        sent = browser.get(f"/pictures/{item}/{kind}").content
        assert not any(w in sent for w in (b"taken at home", b"a secret", b"a profile", b"Exif"))
        assert opened(sent).height > opened(sent).width  # upright
    assert not opened(sent).info.keys() & {"exif", "icc_profile", "comment"}


def test_the_frame_that_was_judged_is_shown(
    browser: TestClient, sessions: Sessions, storage: Storage
) -> None:
    file = io.BytesIO()
    frames = [Image.new("L", (64, 64), level) for level in (0, 255, 90)]
    frames[0].save(file, GIF, save_all=True, append_images=frames[1:], duration=100)
    item = only(sessions, storage, file.getvalue(), frame=1)
    assert pixels(browser.get(f"/pictures/{item}/blurred").content, "L").min() > 240


def test_a_browser_that_has_the_picture_is_told_so_if_it_may_see_it(
    app: FastAPI, browser: TestClient, sessions: Sessions, storage: Storage
) -> None:
    item = only(sessions, storage)
    first = browser.get(f"/pictures/{item}/blurred")
    assert first.headers["cache-control"].startswith("private, max-age=")
    known = {"If-None-Match": first.headers["etag"]}
    again = browser.get(f"/pictures/{item}/blurred", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    closed = client_of(app, sessions, Role.MODERATOR, "knives", classes=("knife",))
    assert closed.get(f"/pictures/{item}/blurred", headers=known).status_code == 403
    assert TestClient(app).get(f"/pictures/{item}/blurred", headers=known).status_code == 401


def test_the_original_is_sent_to_who_revealed_it_and_is_not_kept(
    app: FastAPI, browser: TestClient, sessions: Sessions, storage: Storage
) -> None:
    data = noisy(1, (2000, 500))
    item = only(sessions, storage, data)
    assert browser.get(f"/pictures/{item}/original").status_code == 403
    accounts.reveal(sessions, somebody(sessions, Role.MODERATOR), item, "gun", None)
    answer = browser.get(f"/pictures/{item}/original")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert opened(answer.content).size == (renditions.LARGEST, 400)
    other = client_of(app, sessions, Role.MODERATOR, "other")
    assert other.get(f"/pictures/{item}/original").status_code == 403
    assert key_client(app, sessions).get(f"/pictures/{item}/original").status_code == 403


def test_the_original_stays_closed_when_it_shows_a_closed_class_too(
    app: FastAPI, sessions: Sessions, storage: Storage
) -> None:
    both = {name: record(class_name=name) for name in ("gun", "knife")}
    (item,) = stored(sessions, storage, Pictured(coloured(), records=both))
    browser = client_of(app, sessions, Role.MODERATOR, "guns", classes=("gun",))
    accounts.reveal(sessions, accounts.person_named(sessions, "guns"), item, "gun", None)
    assert browser.get(f"/pictures/{item}/blurred").status_code == 200
    assert browser.get(f"/pictures/{item}/original").status_code == 403


@pytest.mark.parametrize(
    "picture",
    [
        Pictured(b"no picture at all"),
        Pictured(coloured()[:400]),
        Pictured(coloured(), keep=False),
        Pictured(None, Verdict.UNDETERMINED, reason="permission denied"),
    ],
    ids=["broken", "cut", "missing", "never had"],
)
def test_what_cannot_be_drawn_is_a_plain_picture_with_a_sentence(
    browser: TestClient, sessions: Sessions, storage: Storage, picture: Pictured
) -> None:
    item, _ = stored(sessions, storage, picture, Pictured(noisy(9)))  # the store itself is there
    accounts.reveal(sessions, somebody(sessions, Role.MODERATOR), item, "gun", None)
    for kind in ("blurred", "thumbnail", "original"):
        answer = browser.get(f"/pictures/{item}/{kind}")
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert opened(answer.content).format == "JPEG"
    assert browser.get(f"/pictures/{item}/map").status_code == 404


def test_the_map_is_warm_where_the_evidence_is_and_shows_nothing_of_the_image(
    browser: TestClient, sessions: Sessions, storage: Storage
) -> None:
    layers = []
    for seed in (2, 3):
        item = only(sessions, storage, noisy(seed), map=map_of(0, 1))
        answer = browser.get(f"/pictures/{item}/map?class=gun")
        assert answer.headers["content-type"] == "image/webp"
        layers.append(answer.content)
    assert layers[0] == layers[1]  # of two pictures that have nothing in common but their size
    drawn = pixels(layers[0], "RGBA")  # (h, w, 4)
    assert drawn.shape == (240, 480, 4)
    red, blue, alpha = drawn[10, 10, 0], drawn[10, 10, 2], drawn[..., 3]
    assert red > blue + 100 and alpha[10, 10] > 150 and alpha[200, 400] < 5


def test_what_speaks_against_the_class_is_blue(
    browser: TestClient, sessions: Sessions, storage: Storage
) -> None:
    item = only(sessions, storage, map=map_of(0, 1, value=-4.0))
    drawn = pixels(browser.get(f"/pictures/{item}/map").content, "RGBA")
    assert drawn[10, 10, 2] > drawn[10, 10, 0] + 100


def test_a_map_that_failed_its_test_is_not_drawn(
    browser: TestClient, sessions: Sessions, storage: Storage
) -> None:
    lit = record().words[0].words[0].model_copy(update={"grid": map_of(63).grid})
    words = (record().words[0].model_copy(update={"words": (lit,)}),)
    item = only(sessions, storage, proof=FAILED, words=words)
    assert browser.get(f"/pictures/{item}/word/0?class=gun").status_code == 404
    answer = browser.get(f"/pictures/{item}/map?class=gun")
    assert answer.status_code == 404
    assert "did no better than chance" in answer.json()["detail"]


def test_the_region_is_an_outline_and_otherwise_transparent(
    browser: TestClient, sessions: Sessions, storage: Storage
) -> None:
    item = only(sessions, storage)
    alpha = pixels(browser.get(f"/pictures/{item}/region?class=gun").content, "RGBA")[..., 3]
    assert (
        alpha[30, 60] > 200 or alpha[15, 120] > 200
    )  # between the two places and their neighbours
    assert alpha[15, 30] == 0 and alpha[100:, 200:].max() == 0


def test_a_region_that_decides_nothing_is_not_drawn(
    browser: TestClient, sessions: Sessions, storage: Storage
) -> None:
    region = FlipRegion(places=(0, 1), flips=False, margin=3.0, blurred_margin=3.0)
    item = only(sessions, storage, region=region)
    assert browser.get(f"/pictures/{item}/region?class=gun").status_code == 404


def test_words_with_regions_light_them_up(
    browser: TestClient, sessions: Sessions, storage: Storage
) -> None:
    plain = record().words[0]
    grid = map_of(63).grid
    lit = plain.words[0].model_copy(update={"grid": grid})
    words = (plain, plain.model_copy(update={"words": (lit,)}))
    item = only(sessions, storage, words=words)
    assert browser.get(f"/pictures/{item}/word/0?class=gun").status_code == 404
    assert browser.get(f"/pictures/{item}/word/2?class=gun").status_code == 404
    alpha = pixels(browser.get(f"/pictures/{item}/word/1?class=gun").content, "RGBA")[..., 3]
    assert alpha[225, 450] > 100 and alpha[10, 10] == 0


def test_layers_of_a_closed_class_are_refused(
    app: FastAPI, sessions: Sessions, storage: Storage
) -> None:
    both = {name: record(class_name=name) for name in ("gun", "knife")}
    (item,) = stored(sessions, storage, Pictured(coloured(), records=both))
    browser = client_of(app, sessions, Role.MODERATOR, "guns", classes=("gun",))
    for kind in ("map", "region", "word/0"):
        assert browser.get(f"/pictures/{item}/{kind}?class=knife").status_code == 403
    assert browser.get(f"/pictures/{item}/map?class=gun").status_code == 200


def test_neighbours_are_shown_by_digest_to_who_may_see_them(
    app: FastAPI, browser: TestClient, sessions: Sessions, storage: Storage
) -> None:
    data = noisy(4)
    only(sessions, storage, data)
    address = f"/pictures/image/{digest(data)}/blurred"
    assert browser.get(address).status_code == 200
    closed = client_of(app, sessions, Role.MODERATOR, "knives", classes=("knife",))
    assert closed.get(address).status_code == 404
    assert browser.get(f"/pictures/image/{'0' * 64}/blurred").status_code == 404
    assert browser.get("/pictures/image/..%2f..%2fetc/blurred").status_code in (404, 422)


def test_unknown_items_have_no_pictures(browser: TestClient) -> None:
    for kind in ("blurred", "thumbnail", "original", "map", "region", "word/0"):
        assert browser.get(f"/pictures/12345/{kind}").status_code == 404
        assert browser.get(f"/pictures/{2**70}/{kind}").status_code == 422


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 2), (17, 5)])
def test_pictures_of_every_shape_are_drawn(
    browser: TestClient, sessions: Sessions, storage: Storage, size: tuple[int, int]
) -> None:
    item = only(sessions, storage, coloured(size=size, form="PNG"))
    shapes = {
        opened(browser.get(f"/pictures/{item}/{kind}").content).size
        for kind in ("blurred", "map", "region")
    }
    assert shapes == {renditions.fitted(size, renditions.SHOWN)}  # one lies exactly on the other
