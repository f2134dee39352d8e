"""Signed notes and checkpoints: others' vectors, witnesses, and everything that is refused."""

from base64 import b64encode
from dataclasses import replace

import pytest

from filter_service.errors import BrokenLedger, InvalidRequest
from filter_service.ledger.checkpoints import Checkpoint, open_checkpoint, parse
from filter_service.ledger.merkle import EMPTY
from filter_service.ledger.notes import (
    DASH,
    LOG,
    WITNESS,
    SigningKey,
    VerifyingKey,
    cosign,
    open_note,
    sign,
    split,
)

# The example of Go's golang.org/x/mod/sumdb/note, which made it.
GOS_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GOS_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"  # noqa: E501
)
TEXT = "one\n\ntwo\n"
KEY, OTHER = SigningKey("log.example/a", bytes(32)), SigningKey("log.example/b", bytes([1] * 32))
SEER = SigningKey("witness.example/w", bytes([2] * 32), WITNESS)
NOTE = sign(TEXT, [KEY])
LINE = NOTE.removeprefix(TEXT)[1:]
ROOT = b64encode(EMPTY).decode()


def test_a_note_that_go_signed_opens() -> None:
    assert open_note(GOS_NOTE, [GOS_KEY]).text == GOS_NOTE.partition("\n\n")[0] + "\n"


def test_a_note_that_go_signed_and_somebody_changed_does_not() -> None:
    with pytest.raises(BrokenLedger, match="The signature of PeterNeumann"):
        open_note(GOS_NOTE.replace("problem,", "problem;"), [GOS_KEY])


def test_keys_are_read_as_they_are_written() -> None:
    for key in (KEY, OTHER, SEER, SigningKey.new("a.example")):
        assert SigningKey.of(key.skey) == key
        assert VerifyingKey.of(key.vkey) == key.verifying
    assert VerifyingKey.of(GOS_KEY).vkey == GOS_KEY


def test_a_secret_is_not_shown_in_passing() -> None:
    key = SigningKey.new("a.example")
    assert "seed" not in repr(key)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        "a+b",
        GOS_KEY[:-1],
        GOS_KEY.replace("c74f20a3", "c74f20a4"),
        GOS_KEY.replace("c74f20a3", "C74F20A3"),
        GOS_KEY.replace("PeterNeumann", "Peter Neumann"),
        GOS_KEY.replace("PeterNeumann", "Pete"),
        GOS_KEY.replace("+ARpc", "+Axpc"),
        f"{GOS_KEY} ",
        KEY.skey,
    ],
)
def test_what_is_not_a_key_is_refused(vkey: str) -> None:
    with pytest.raises(InvalidRequest):
        VerifyingKey.of(vkey)


@pytest.mark.parametrize(
    "skey", ["", KEY.vkey, KEY.skey[:-4], KEY.skey.replace("log", "lag"), f"{KEY.skey}\n"]
)
def test_what_is_not_a_secret_key_is_refused_and_not_told(skey: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        SigningKey.of(skey)
    assert b64encode(b"\1" + KEY.seed).decode()[:20] not in str(refused.value)


def test_a_name_without_spaces_is_wanted() -> None:
    for name in ("", "a b", "a+b", "a\N{NO-BREAK SPACE}b"):
        with pytest.raises(InvalidRequest, match="cannot name a key"):
            SigningKey.new(name)


def test_all_known_signers_are_told() -> None:
    note = sign(TEXT, [KEY, OTHER])
    assert open_note(note, [KEY.vkey]).verified == (KEY.vkey,)
    assert open_note(note, [OTHER.vkey, KEY.vkey]).verified == (KEY.vkey, OTHER.vkey)


def test_text_may_hold_empty_lines() -> None:
    assert open_note(NOTE, [KEY.vkey]).text == TEXT


def test_a_note_of_unknown_signers_is_refused() -> None:
    with pytest.raises(BrokenLedger, match="No known key signed"):
        open_note(NOTE, [OTHER.vkey])
    with pytest.raises(BrokenLedger, match="known are none"):
        open_note(NOTE, [])


def test_a_key_of_the_same_name_is_another_key() -> None:
    same = replace(OTHER, name=KEY.name)
    with pytest.raises(BrokenLedger, match="No known key signed"):
        open_note(NOTE, [same.vkey])


def test_a_wrong_signature_beside_a_good_one_is_refused() -> None:
    wrong = sign("three\n", [OTHER]).removeprefix("three\n\n")
    assert open_note(NOTE + wrong, [KEY.vkey]).verified == (KEY.vkey,)
    with pytest.raises(BrokenLedger, match="The signature of log"):
        open_note(NOTE + wrong, [KEY.vkey, OTHER.vkey])


def test_every_changed_character_is_found() -> None:
    for at, character in enumerate(NOTE):
        changed = NOTE[:at] + chr(ord(character) ^ 1) + NOTE[at + 1 :]
        with pytest.raises(BrokenLedger):
            open_note(changed, [KEY.vkey])


@pytest.mark.parametrize(
    "note",
    [
        "",
        TEXT,
        f"\n{LINE}",
        f"\n\n{LINE}",
        NOTE[:-1],
        f"{NOTE}\n",
        NOTE.replace("\n", "\r\n"),
        NOTE.replace("one", "o\x00e"),
        NOTE.replace("one", "o\x7f\x1fe"),
        NOTE.replace("one", "o\ud800e"),
        NOTE.replace(DASH, "- "),
        NOTE.replace(DASH, "—"),
        NOTE.replace("=\n", "\n"),
        NOTE.replace("=\n", "==\n"),
        f"{NOTE}— a AAAA\n",
        f"{NOTE}— a+b AAAAAAAA\n",
        f"{NOTE}—  AAAAAAAA\n",
        f"{NOTE}a line\n",
        NOTE + LINE * 100,
        f"{'a' * 1_000_000}\n\n{LINE}",
    ],
)
def test_another_form_of_note_is_refused(note: str) -> None:
    with pytest.raises(BrokenLedger):
        open_note(note, [KEY.vkey])


def test_bits_that_base64_drops_must_be_zero() -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = letters.index(LINE[-3])  # before "=\n": its two last bits are not of the signature
    changed = f"{NOTE[:-3]}{letters[last ^ 1]}=\n"
    with pytest.raises(BrokenLedger, match="is not a signature"):
        open_note(changed, [KEY.vkey])


@pytest.mark.parametrize("text", ["", "no newline", "a\tb\n", "a\x00\n"])
def test_a_text_that_cannot_be_a_note_is_not_signed(text: str) -> None:
    with pytest.raises(ValueError, match="ends with a newline"):
        sign(text, [KEY])


def test_a_witness_says_when_it_saw_the_text() -> None:
    note = cosign(NOTE, SEER, 1_679_315_147)
    opened = open_note(note, [KEY.vkey, SEER.vkey])
    assert opened.verified == (KEY.vkey, SEER.vkey)
    assert opened.seen == {SEER.vkey: 1_679_315_147}
    name, content = split(note)[1][1]
    assert (name, len(content)) == (SEER.name, 4 + 8 + 64)


def test_a_witness_line_is_passed_over_by_who_does_not_know_it() -> None:
    assert open_note(cosign(NOTE, SEER, 1), [KEY.vkey]).seen == {}


def test_the_newest_time_of_a_witness_counts() -> None:
    note = cosign(cosign(NOTE, SEER, 9), SEER, 5)
    assert open_note(note, [SEER.vkey]).seen == {SEER.vkey: 9}


def test_a_witness_that_signs_another_time_is_refused() -> None:
    note = cosign(NOTE, SEER, 7)
    name, content = split(note)[1][1]
    later = content[:4] + (8).to_bytes(8) + content[12:]
    with pytest.raises(BrokenLedger, match="The signature of witness"):
        open_note(f"{NOTE}{DASH}{name} {b64encode(later).decode()}\n", [KEY.vkey, SEER.vkey])


def test_a_witness_key_does_not_sign_as_a_log() -> None:
    as_log = replace(SEER, kind=LOG)
    assert as_log.vkey != SEER.vkey
    with pytest.raises(BrokenLedger, match="No known key signed"):
        open_note(cosign(NOTE, SEER, 7), [as_log.vkey])


def test_a_short_signature_of_a_known_key_is_refused() -> None:
    for key in (KEY, SEER):
        line = f"{DASH}{key.name} {b64encode(key.verifying.id + b'abc').decode()}\n"
        with pytest.raises(BrokenLedger, match="is wrong"):
            open_note(NOTE + line, [OTHER.vkey, key.vkey])


@pytest.mark.parametrize("size", [0, 1, 20_852_163, 2**63 - 1])
def test_a_checkpoint_is_read_as_it_is_written(size: int) -> None:
    checkpoint = Checkpoint("example.com/behind-the-sofa", size, EMPTY, ("more",))
    assert parse(checkpoint.text) == checkpoint
    assert open_checkpoint(checkpoint.note([KEY]), [KEY.vkey])[0] == checkpoint


def test_a_checkpoint_of_the_specification_is_read() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    checkpoint = parse(text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert checkpoint.root.hex().startswith("0ac5186a91863e8e1d90c808014aa89b")


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"a\n1\n{ROOT}",
        f"\n1\n{ROOT}\n",
        f"a\n01\n{ROOT}\n",
        f"a\n+1\n{ROOT}\n",
        f"a\n-1\n{ROOT}\n",
        f"a\n1 \n{ROOT}\n",
        f"a\n١\n{ROOT}\n",
        f"a\n1e3\n{ROOT}\n",
        f"a\n{10**19}\n{ROOT}\n",
        f"a\n1\n{ROOT[:-5]}\n",
        f"a\n1\n{ROOT[:-1]}\n",
        f"a\n1\n{ROOT[:-2]}V=\n",
        f"a\n1\n{ROOT}\n\n",
        f"a\n1\n{ROOT}\nmore",
        f"a\n1\n\n{ROOT}\n",
        "a\n1\n",
    ],
)
def test_another_form_of_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(BrokenLedger, match="is not a checkpoint"):
        parse(text)
