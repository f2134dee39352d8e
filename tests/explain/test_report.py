"""The audit of one decision, its page and its text: whole, honest, and closed to the outside."""

import copy
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch
from rich.console import Console
from torch import Tensor
from typer.testing import CliRunner, Result

from filter_service.cli import app
from filter_service.demo import POLICY
from filter_service.demo.samples import jpeg
from filter_service.demo.scenes import DEV_SEEDS, mask, sample_scene
from filter_service.encoder import Encoder, load_encoder
from filter_service.explain.memory import ArrayMemory
from filter_service.explain.study.decision_audit import Audit
from filter_service.explain.study.decision_parts import PARTS
from filter_service.explain.study.decision_study import audit
from filter_service.explain.study.methods import METHODS
from filter_service.explain.study.report import page, report_charts, tell
from filter_service.images import Image, decode
from filter_service.policy import ForbiddenClass, Policy, read_policy
from tests.support.proofs import FAILED
from tests.support.tiny_encoders import tiny

SCENE = sample_scene(DEV_SEEDS + 3, 2, ("knife", "dog"))
FEW = 64  # masked images: enough for a page
BANK = ("a dog", "a drum", "a cat", "a car", "a cup of tea", "a house")
HOSTILE = "<script>alert(1)</script> \"'&{{ 7*7 }} [bold]"
ANCHORS = {
    *("pixels", "agreement", "additivity", "words", "word-regions"),
    *("otherwise", "regions", "images", "difference", "texts"),
    *("inside", "heads", "lens", "trace", "neurons", "proof", "provenance"),
}
VOID = {"meta", "img", "input", "br"}


class Checked(HTMLParser):
    """What a page is made of; fails on a tag that is not closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "id" and value:
                assert value not in self.ids
                self.ids.add(value)
            if name in ("src", "href", "srcset", "action", "data") and value:
                self.addresses.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.set_num_threads(1)
    return load_encoder("bundled", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def image() -> Image:
    return decode(jpeg(SCENE))


@pytest.fixture(scope="module")
def others() -> list[Image]:
    """Clear images, to be found as counterfactuals."""
    return [decode(jpeg(sample_scene(DEV_SEEDS + i, 1, ("dog", "drum")))) for i in range(4)]


@pytest.fixture(scope="module")
def memory(encoder: Encoder, others: list[Image]) -> ArrayMemory:
    z = encoder.encode(torch.stack([encoder.pixels(i.frames[0].picture) for i in others]))
    exact, digests = np.ones(len(z), dtype=np.bool_), [i.digest for i in others]
    wordings = encoder.encode_texts(BANK)
    return ArrayMemory(encoder.vectors(read_policy(POLICY)), digests, z, exact, BANK, wordings)


@pytest.fixture(scope="module")
def found(encoder: Encoder, image: Image, memory: ArrayMemory) -> Audit:
    vectors = encoder.vectors(read_policy(POLICY))
    return audit(encoder, vectors, "weapons", image, [memory], masks=FEW)


@pytest.fixture(scope="module")
def whole(found: Audit, image: Image, others: list[Image]) -> str:
    return page(found, image.frames[0].picture, {i.digest: i.frames[0].picture for i in others[:2]})


def small(encoder: Any, prompt: str, image: Image, whole: bool = False) -> Audit:
    """An audit of a policy of one prompt, with the default map only."""
    asked = ForbiddenClass(name="asked", prompts=(prompt,), threshold=0.5)
    policy = Policy(name="asked", neutral=("a dog", "a house"), classes=(asked,))
    methods = {name: METHODS[name] for name in ("decomposition", "legrad", "rise")}
    vectors = encoder.vectors(policy)
    return audit(encoder, vectors, "asked", image, (), methods, whole, masks=FEW)


def printed(audit: Audit) -> str:
    file = io.StringIO()
    tell(audit, Console(file=file, width=100))
    return file.getvalue()


class TestAudit:
    def test_every_part_is_there_or_says_why_not(self, found: Audit) -> None:
        assert set(found.refused) == {"caption"}
        assert "CoCa" in found.refused["caption"]
        for name in PARTS:
            assert (getattr(found, name) is None) == (name in found.refused)
        assert found.agreement is not None and len(found.agreement.names) == 4

    def test_every_map_adds_up_to_the_margin(self, found: Audit) -> None:
        assert [m.name for m in found.maps] == list(METHODS)
        for drawn in found.maps:
            assert drawn.map is not None
            total = drawn.map.total + drawn.map.remainder
            assert total == pytest.approx(found.record.margin, abs=1e-4)

    def test_the_words_maps_add_up_to_the_map_of_all_words(self, found: Audit) -> None:
        regions = found.word_regions
        assert regions is not None and regions.gap < 1e-4
        rows = [w.map.grid.astype(np.float32) for w in regions.words]
        assert np.abs(np.sum(rows, axis=0) - regions.whole.grid).max() < 0.02  # kept in float16
        kept = {w.word: w.shapley for p in found.record.words[:1] for w in p.words}
        assert {w.word: w.shapley for w in regions.words} == pytest.approx(kept, abs=1e-3)

    def test_the_knife_finds_the_knife(self, found: Audit) -> None:
        assert found.word_regions is not None
        (knife,) = (w.map for w in found.word_regions.words if w.word == "knife")
        where = mask(SCENE, [o.kind for o in SCENE.objects].index("knife"), 64)
        cover = where.reshape(8, 8, 8, 8).mean(axis=(1, 3))  # (8, 8)
        y, x = np.unravel_index(knife.grid.argmax(), knife.grid.shape)
        assert cover[y, x] > 0.1

    def test_a_clear_image_is_explained_too(self, encoder: Encoder, image: Image) -> None:
        asked = small(encoder, "a banana", image, whole=True)
        assert not asked.flagged and asked.region is None
        assert "not flagged" in asked.refused["sufficient"]
        assert asked.contributions is not None and asked.trace is not None
        assert "not flagged" in page(asked, image.frames[0].picture)

    def test_it_is_one_json_document(self, found: Audit) -> None:
        assert Audit.model_validate(json.loads(found.model_dump_json())).digest == found.digest

    def test_the_model_is_left_as_it_was(self, encoder: Encoder, image: Image) -> None:
        before = {k: v.clone() for k, v in encoder.model.state_dict().items()}
        small(encoder, "a knife", image, whole=True)
        assert all(torch.equal(v, before[k]) for k, v in encoder.model.state_dict().items())
        assert not any(m._forward_hooks for m in encoder.model.modules())


class TestPage:
    def test_it_names_the_look_alikes(self, encoder: Encoder, image: Image) -> None:
        asked = ForbiddenClass(
            name="asked", prompts=("a knife",), threshold=0.5, look_alikes=("a pencil",)
        )
        vectors = encoder.vectors(Policy(name="asked", neutral=("a dog",), classes=(asked,)))
        methods = {"decomposition": METHODS["decomposition"]}
        found = audit(encoder, vectors, "asked", image, (), methods, whole=False, masks=FEW)
        assert (found.neutral, found.look_alikes) == (("a dog",), ("a pencil",))
        told = page(found, image.frames[0].picture, {})
        assert "<dt>and with its look-alikes</dt><dd>a pencil</dd>" in told

    def test_it_is_well_formed_and_has_every_section(self, whole: str) -> None:
        assert Checked(whole).ids >= ANCHORS

    def test_nothing_is_asked_of_the_outside(self, whole: str) -> None:
        parsed = Checked(whole)
        assert all(a.startswith(("data:image/webp;base64,", "#")) for a in parsed.addresses)
        assert not re.search(r"https?:|url\(|@import|//\w+\.", whole)
        assert not {"script", "link", "iframe", "object", "form"} & set(parsed.tags)

    def test_every_link_leads_somewhere(self, whole: str) -> None:
        parsed = Checked(whole)
        assert {a[1:] for a in parsed.addresses if a.startswith("#")} <= parsed.ids

    def test_every_map_shows_its_scale_and_its_remainder(self, whole: str, found: Audit) -> None:
        for drawn in found.maps:
            assert drawn.map is not None
            start = whole.index(f"<strong>{drawn.name}</strong>")
            caption = whole[start : start + 250]
            assert re.search(r"full colour at \d+\.\d\d logits", caption)
            assert f"remainder {report_charts.signed(drawn.map.remainder)}" in caption

    def test_what_does_not_add_up_is_called_so(self, found: Audit, image: Image) -> None:
        assert found.additivity is not None
        for r_squared, times in ((0.79, 2), (0.81, 0)):
            fit = found.additivity.model_copy(update={"r_squared": r_squared})
            shown = page(found.model_copy(update={"additivity": fit}), image.frames[0].picture)
            assert shown.count("Not explainable additively") == times

    def test_flagged_pictures_are_veiled_and_the_clear_ones_beside_them_not(
        self, whole: str, found: Audit
    ) -> None:
        figures = re.findall(r'<figure class="shown(| veiled)".*?</figure>', whole, re.DOTALL)
        assert found.flagged and found.record.images
        assert figures.count("") == len(found.record.images)
        assert figures.count(" veiled") >= len(METHODS) + 2

    def test_a_picture_that_is_not_at_hand_is_missed(self, found: Audit, image: Image) -> None:
        assert "its picture is not at hand" in page(found, image.frames[0].picture, {})

    def test_a_map_that_failed_its_test_is_no_evidence(self, found: Audit, image: Image) -> None:
        failed = found.model_copy(
            update={"record": found.record.model_copy(update={"proof": FAILED})}
        )
        shown = page(failed, image.frames[0].picture)
        assert "no better than chance" in shown and "Not faithful: the marked places" in shown
        assert shown.count("evidence, with the region") == 0

    def test_hostile_prompts_stay_text(self, encoder: Encoder, image: Image) -> None:
        asked = small(encoder, HOSTILE, image)
        shown = page(asked, image.frames[0].picture)
        assert "script" not in Checked(shown).tags
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown and "{{ 7*7 }}" in shown
        assert "[bold]" in printed(asked)

    def test_what_was_not_asked_is_called_so(self, encoder: Encoder, image: Image) -> None:
        shown = page(small(encoder, "a knife", image), image.frames[0].picture)
        assert "--all asks it" in shown and Checked(shown).ids >= ANCHORS

    @pytest.mark.parametrize("size", [(1, 1), (900, 30)])
    def test_pictures_of_every_shape_get_a_page(
        self, encoder: Encoder, size: tuple[int, int]
    ) -> None:
        file = io.BytesIO()
        PIL.Image.new("RGB", size, (90, 120, 160)).save(file, "PNG")
        flat = decode(file.getvalue())
        Checked(page(small(encoder, "a knife", flat, whole=True), flat.frames[0].picture))


class TestText:
    def test_it_says_what_the_page_says(self, found: Audit) -> None:
        text = printed(found)
        for said in ("weapons: flagged", "knife", "kernel-shap", "R²", "neurons", "The proof"):
            assert said in text


@pytest.fixture(scope="module")
def coca() -> Any:
    """A small CoCa with all that an audit uses of an encoder."""
    encoder = copy.copy(tiny("coca"))
    encoder.details = {"preprocessing": {"size": [32, 32], "resize_mode": "squash"}}
    encoder.tokenizer = open_clip.SimpleTokenizer(context_length=16)

    def pixels(frame: PIL.Image.Image) -> Tensor:
        values = np.asarray(frame.resize((32, 32)), dtype=np.float32) / 127.5 - 1
        return torch.from_numpy(values).permute(2, 0, 1)

    encoder.pixels = pixels
    return encoder


class TestCoca:
    def test_its_caption_is_shown_with_where_it_looked(self, coca: Any, image: Image) -> None:
        asked = small(coca, "a knife", image, whole=True)
        assert asked.caption is not None
        shown = page(asked, image.frames[0].picture)
        assert "caption" in Checked(shown).ids
        assert shown.count("of the attention") == len(asked.caption.words)

    def test_what_refuses_shows_its_sentence(self, coca: Any, image: Image) -> None:
        asked = small(coca, "a knife", image, whole=True)
        refusals = [m.refusal for m in asked.maps if m.name == "legrad"]
        shown = page(asked, image.frames[0].picture)
        for sentence in (*refusals, asked.refused["contributions"], asked.refused["neurons"]):
            assert sentence and re.search("class.token", sentence)
            assert sentence.split("'")[0] in shown


class TestCommand:
    """`explain POLICY --prompt`: with no database and no broker."""

    @pytest.fixture
    def explain(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setenv("FILTER_SERVICE_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("FILTER_SERVICE_DEVICE", "cpu")
        file = tmp_path / "scene.jpg"
        file.write_bytes(jpeg(SCENE))

        def run(*words: str) -> Result:
            done = CliRunner().invoke(app, ["explain", str(file), *words])
            assert not (tmp_path / "data").exists()  # no server was started
            return done

        return run

    def test_a_page_is_written(self, explain: Any, tmp_path: Path) -> None:
        out = tmp_path / "report.html"
        words = ("--prompt", "a knife", "--prompt", "a gun", "--neutral", "a house")
        done = explain(*words, "--method", "maskclip", "--out", str(out))
        assert done.exit_code == 0, done.output
        shown = out.read_text()
        Checked(shown)
        assert "<strong>maskclip</strong>" in shown and "<strong>legrad</strong>" not in shown
        assert "a knife, a gun" in shown

    def test_json_is_one_document(self, explain: Any) -> None:
        done = explain("--prompt", "a banana", "--json")
        assert done.exit_code == 0, done.output
        document = json.loads(done.stdout)
        assert document["flagged"] is False and document["maps"][0]["name"] == "decomposition"

    def test_a_text_is_printed(self, explain: Any) -> None:
        done = explain("--prompt", "a knife")
        assert done.exit_code == 0 and "a-knife: flagged" in done.stdout

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            ((), "--prompt"),
            (("--prompt", "a gun", "--method", "magic"), "exact-decomposition"),
            (("--prompt", "a gun", "--out", "/nowhere/at/all.html"), "no folder"),
            (("--prompt", ""), "prompts"),
        ],
        ids=["no prompt", "unknown method", "no folder", "empty prompt"],
    )
    def test_what_cannot_be_is_said(
        self, explain: Any, words: tuple[str, ...], sentence: str
    ) -> None:
        done = explain(*words)
        assert done.exit_code == 2 and sentence in done.output
