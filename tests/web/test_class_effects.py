"""What the editor shows of one class over HTTP: figures, the same without scripts, and for whom."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import insert

from filter_service import rollout
from filter_service.accounts import Role
from filter_service.db.session import Sessions
from filter_service.db.tables import Tally
from filter_service.policy import Policy, Preservation
from filter_service.reviews import tallies
from filter_service.storage import Storage
from filter_service.web.app import create_app
from filter_service.web.console.model_warmup import Warm
from tests.support.margin_house import KnownImage, WordSeeker, encoder_of, furnished
from tests.support.policy_forms import sent_fields
from tests.support.simple_classifier import POLICY
from tests.support.web_clients import client_of, key_client, web_service

EFFECTS, FORM = "/policies/editor/effects", "/policies/editor/form"
A_DAY = 900.0

Params = dict[str, str | int]


@dataclass
class House:
    """A console over images that were judged and labelled for a knife."""

    images: dict[int, KnownImage]
    sessions: Sessions
    app: FastAPI
    editor: TestClient

    def figures(self, threshold: float, **fields: str) -> str:
        """The figures for a knife, as text between tags."""
        sent = sent_fields(POLICY) | {"c0-threshold": str(threshold), **fields}
        answer = self.editor.post(EFFECTS, params={"number": 0, "part": "figures"}, data=sent)
        assert answer.status_code == 200, answer.text
        return plain(answer.text)


def plain(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


@pytest.fixture
def house(sessions: Sessions, storage: Storage) -> Iterator[House]:
    images = furnished(sessions, storage)
    with sessions.begin() as session:
        session.execute(insert(Tally).values(kind=tallies.JUDGED, amount=A_DAY - len(images)))
    seeker = WordSeeker(encoder_of(sessions))
    app = create_app(web_service(sessions, storage, seeker=seeker, four_eyes=True))
    app.state.warm = Warm(seeker)
    assert app.state.warm.ready(10)
    yield House(images, sessions, app, client_of(app, sessions, Role.POLICY_EDITOR))


def test_the_slider_gets_what_counting_gives(house: House) -> None:
    over = sum(k.margin >= 1.386295 for k in house.images.values())
    lost = sum(0 <= k.margin < 1.386295 and k.truth is True for k in house.images.values())
    assert over and lost
    said = house.figures(0.8)
    assert f"Flags a day {A_DAY * over / len(house.images):.0f} " in said
    assert f"Confirmed flags lost {lost} " in said
    assert f"Of the {len(house.images)} newest images {over} would be flagged" in said
    assert "900 a day come in" in said
    assert "Would be flagged no longer" in said and "Would be flagged newly" not in said


def test_pictures_that_cross_are_blurred_and_lead_to_their_items(house: House) -> None:
    sent = sent_fields(POLICY) | {"c0-threshold": "0.8"}
    page = house.editor.post(EFFECTS, params={"number": 0}, data=sent).text
    items = [int(n) for n in re.findall(r'href="/items/(\d+)"', page)]
    crossed = {k.item: k.truth for k in house.images.values() if 0 <= k.margin < 1.386295}
    assert items and set(items) <= set(crossed)
    assert crossed[items[0]] is True
    sources = re.findall(r'<img src="([^"]*)"', page)
    assert all(re.fullmatch(r"/pictures/image/[0-9a-f]{64}/blurred", s) for s in sources)


def test_a_preview_without_scripts_gives_the_same_figures(house: House) -> None:
    sent = sent_fields(POLICY) | {"c0-threshold": "0.8", "action": "preview"}
    page = house.editor.post(FORM, data=sent)
    assert page.status_code == 200
    assert house.figures(0.8).strip() in plain(page.text)
    assert page.text.count('class="stream-margins"') == len(POLICY.classes)


def test_other_words_get_figures_from_the_model(house: House) -> None:
    whole = {"number": 0}
    sent = sent_fields(POLICY) | {"c0-prompts": "a dagger"}
    page = house.editor.post(EFFECTS, params=whole, data=sent).text
    assert "computed for these words" in page
    assert (
        "computed for these words"
        not in house.editor.post(EFFECTS, params=whole, data=sent_fields(POLICY)).text
    )


def test_phrases_are_told_or_why_there_are_none(house: House) -> None:
    asked: Params = {"number": 0, "part": "phrases"}
    said = house.editor.post(EFFECTS, params=asked, data=sent_fields(POLICY)).text
    assert "are the least" in said
    sent = sent_fields(POLICY) | {"action": "phrases-0"}
    assert "are the least" in house.editor.post(FORM, data=sent).text


def test_a_restricted_class_shows_nothing(house: House) -> None:
    locked = POLICY.classes[0].model_copy(update={"sealed": Preservation(days=9)})
    policy = POLICY.model_copy(update={"classes": (locked, POLICY.classes[1])})
    assert_refused(house.editor, policy, "restricted")
    rollout.propose(house.sessions, policy, rollout.Flags.KEEP, "why", "person ada", four_eyes=True)
    assert_refused(house.editor, POLICY, "restricted")  # whatever this version says of it


def test_whoever_may_not_see_a_class_gets_none_of_its_figures(house: House) -> None:
    narrow = client_of(house.app, house.sessions, Role.POLICY_EDITOR, "narrow", classes=("gun",))
    assert_refused(narrow, POLICY, "may see")


def assert_refused(client: TestClient, policy: Policy, sentence: str) -> None:
    """Neither figures nor a chart, nor phrases, nor by another name."""
    renamed = sent_fields(policy) | {"c0-name": "cutlery"}
    for sent in (sent_fields(policy), renamed):
        whole = client.post(EFFECTS, params={"number": 0}, data=sent).text
        assert sentence in whole and "<svg" not in whole and "/items/" not in whole
        for part in ("figures", "phrases"):
            answer = client.post(EFFECTS, params={"number": 0, "part": part}, data=sent)
            assert (answer.status_code, sentence in answer.text) == (422, True)


def test_what_cannot_be_shown_is_a_sentence(house: House) -> None:
    sent = sent_fields(POLICY)
    cases: tuple[tuple[Params, dict[str, str], str], ...] = (
        ({"number": 9}, {}, "no class of this form"),
        ({"number": 0}, {"c1-threshold": "much"}, "Mend what is marked"),
        ({"number": 0, "part": "all of it"}, {}, "part"),
        ({"number": 10**9}, {}, "number"),
    )
    for params, fields, sentence in cases:
        answer = house.editor.post(EFFECTS, params=params, data=sent | fields)
        assert (answer.status_code, sentence in answer.text) == (422, True)


def test_no_model_is_a_sentence_where_words_are_new(
    house: House, sessions: Sessions, storage: Storage
) -> None:
    app = create_app(web_service(sessions, storage))
    editor = client_of(app, sessions, Role.POLICY_EDITOR)
    sent = sent_fields(POLICY) | {"c0-prompts": "a dagger"}
    assert "No encoder" in editor.post(EFFECTS, params={"number": 0}, data=sent).text
    kept = editor.post(EFFECTS, params={"number": 0}, data=sent_fields(POLICY)).text
    assert "stream-margins" in kept


def test_nobody_else_is_told(house: House, sessions: Sessions, storage: Storage) -> None:
    app = create_app(web_service(sessions, storage))
    for stranger in (key_client(app, sessions), client_of(app, sessions, Role.MODERATOR)):
        answer = stranger.post(EFFECTS, params={"number": 0}, data=sent_fields(POLICY))
        assert answer.status_code == 403
    del house.editor.headers["X-CSRF-Token"]
    answer = house.editor.post(EFFECTS, params={"number": 0}, data=sent_fields(POLICY))
    assert answer.status_code == 403
