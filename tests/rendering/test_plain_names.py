"""Names from outside: nothing in them hides, turns others round, or is obeyed by a terminal."""

import pytest

from filter_service import accounts
from filter_service.accounts import Profile, Role, clients
from filter_service.cli.plain_cells import cells
from filter_service.db.policies import store_policy
from filter_service.db.session import Sessions
from filter_service.intake import batches, item_lists, submissions
from filter_service.intake.submissions import Submission
from filter_service.rendering.plain_names import plain
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.command_line import Line, line, settings
from tests.support.simple_classifier import POLICY
from tests.support.web_clients import key_client, web_service

__all__ = ["line", "settings"]  # fixtures

HIDDEN = {
    "a\u202egpj.exe": r"a\u202egpj.exe",  # right to left
    "a\u2066b\u2069": r"a\u2066b\u2069",
    "zero\u200bwidth\ufeff": r"zero\u200bwidth\ufeff",
    "bell\x07\x1b[2J": r"bell\x07\x1b[2J",
    "c1\x9b31m": r"c1\x9b31m",
    "line\u2028break\n": r"line\u2028break\n",
    "half\ud800": r"half\ud800",
}


@pytest.mark.parametrize("name", ["Käse 1.jpg", "写真　一.png", "a b.png", "🦊.gif", "[/x].jpg"])
def test_a_name_that_shows_what_it_is_stays(name: str) -> None:
    assert plain(name) == name


@pytest.mark.parametrize(("name", "shown"), HIDDEN.items())
def test_what_hides_is_shown(name: str, shown: str) -> None:
    assert plain(name) == shown


@pytest.mark.parametrize("way", ["data", "uri", "error"])
def test_names_are_plain_however_they_come(sessions: Sessions, storage: Storage, way: str) -> None:
    name = "\u202e1.jpg"
    given = {"data": b"1", "uri": "https://h/1.jpg", "error": f"{name} cannot be read"}[way]
    file = Submission(name, **{way: given})  # type: ignore[arg-type]
    batch = submissions.accept(sessions, storage, lambda: None, [file], POLICY, label=name)
    (item,) = item_lists.items(sessions, batch)
    said = [item.source, item.reason or "", batches.status(sessions, batch).label]
    assert [s for s in said if "\u202e" in s] == []
    assert item.source == r"\u202e1.jpg"


def test_the_name_in_an_upload_is_plain(sessions: Sessions, storage: Storage) -> None:
    client = key_client(create_app(web_service(sessions, storage)), sessions)
    with sessions.begin() as session:
        store_policy(session, POLICY)
    body = (
        b'--x\r\nContent-Disposition: form-data; name="policy"\r\n\r\n' + POLICY.name.encode()
        + b'\r\n--x\r\nContent-Disposition: form-data; name="f"; filename="a\xe2\x80\xaeb\x07.png"'
        + b"\r\n\r\n1\r\n--x--\r\n"
    )  # fmt: skip
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/v1/batches", content=body, headers=kind)
    assert answer.status_code == 202, answer.text
    (item,) = client.get(f"{answer.headers['Location']}/items").json()["items"]
    assert item["source"].isprintable() and item["source"].startswith("a")


def test_a_name_in_square_brackets_is_no_markup(
    line: Line, sessions: Sessions, storage: Storage
) -> None:
    names = ("[/x].jpg", "[red]b.jpg", "a[bold.jpg")
    files = [Submission(name, error="[/no] picture") for name in names]
    submissions.accept(sessions, storage, lambda: None, files, POLICY)
    shown = line("items")
    assert [name for name in (*names, "[/no]") if name not in shown] == []


def test_cells_show_markup_letter_by_letter() -> None:
    (cell,) = cells("[/x].jpg\x1b")
    assert (cell.plain, cell.spans) == (r"[/x].jpg\x1b", [])


def test_names_of_people_keys_and_clients_hide_nothing(sessions: Sessions) -> None:
    name, shown = "eve\u202egnp", r"eve\u202egnp"
    profile = Profile(Role.ADMIN, name=name)
    assert accounts.add_person(sessions, "eve", profile, None, "service").name == shown
    other = Profile(Role.ADMIN, name=f"{name}\u200b")
    assert accounts.change_person(sessions, "eve", other, "service").name == rf"{shown}\u200b"
    accounts.add_key(sessions, name, "service")
    assert [(key.name, client) for key, client in accounts.keys(sessions)] == [(shown, shown)]
    accounts.add_key(sessions, "second", "service", client=name)  # as it was typed before
    assert clients.add_client(sessions, "half\ud800", "service").name == r"half\ud800"
