"""Labelled pictures: a folder per class or JSON Lines, or a sentence that says what is wrong."""

import json
from pathlib import Path

import pytest

from filter_service.errors import InvalidRequest
from filter_service.intake.labelled_files import LabelledFile, read_labelled, require_agreement

NAMES = ("weapons", "alcohol")


def lay(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_folder_names_the_class_of_what_lies_in_it(tmp_path: Path) -> None:
    found = read_labelled(
        lay(tmp_path, "clear/b.jpg", "weapons/deep/a.jpg", "clear/.hidden"), NAMES
    )
    assert [(f.path.name, set(f.classes)) for f in found] == [
        ("b.jpg", set()),
        ("a.jpg", {"weapons"}),
    ]


def test_a_line_names_its_classes_and_a_path_beside_it(tmp_path: Path) -> None:
    lines = [
        {"source": "b.jpg", "classes": ["weapons", "alcohol"]},
        {"source": "a.jpg", "classes": []},
    ]
    file = tmp_path / "truth.jsonl"
    file.write_text("\n\n".join(map(json.dumps, lines)))
    found = read_labelled(file, NAMES)
    assert [f.path for f in found] == [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    assert found[1].classes == {"weapons", "alcohol"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no json", ":1: no JSON"),
        ("[" * 100_000, ":1: no JSON"),
        ("[]", ":1: a line is"),
        ('{"source": 1, "classes": []}', ":1: a line is"),
        ('{"source": "a.jpg"}', ":1: classes is a list of names"),
        ('{"source": "a.jpg", "classes": "weapons"}', ":1: classes is a list of names"),
        ('{"source": "a.jpg", "classes": ["wepons"]}', "nearest is 'weapons'"),
        ('{"source": "a.jpg", "classes": ["clear"]}', "'clear' is no field"),
        ('{"source": "a.jpg", "classes": [], "label": 1}', "'label' is no field"),
        ('{"source": "a.jpg", "source": "b.jpg", "classes": []}', "more than once"),
        ("", "holds no picture"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "truth.jsonl"
    file.write_text(line)
    with pytest.raises(InvalidRequest) as refusal:
        read_labelled(file, NAMES)
    assert said in str(refusal.value)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "truth.jsonl"
    file.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_labelled(file, NAMES)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_labelled(tmp_path / "nowhere", NAMES)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["wepons/a.jpg"], "nearest is 'weapons'"),
        (["a.jpg", "clear/b.jpg"], "lies in no class's folder"),
        ([], "holds no picture"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read_labelled(lay(tmp_path, *names), NAMES)


def test_the_same_picture_under_two_labels_is_a_contradiction() -> None:
    here = LabelledFile(Path("clear/a.jpg"), frozenset())
    there = LabelledFile(Path("weapons/b.jpg"), frozenset({"weapons"}))
    require_agreement([("d", here), ("e", there), ("d", here)])
    with pytest.raises(InvalidRequest, match=r"clear/a.jpg and weapons/b.jpg are the same picture"):
        require_agreement([("d", here), ("d", there)])
