"""People, their sessions, keys and what they saw: the verbs, on a real database."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from filter_service import accounts
from filter_service.accounts import Profile, Role, login_throttle
from filter_service.accounts.logins import open_session
from filter_service.db.session import Sessions
from filter_service.db.tables import ApiKey, LedgerEntry, LoginFailure
from filter_service.errors import (
    Conflict,
    FilterServiceError,
    InvalidRequest,
    NotAllowed,
    NotSignedIn,
    TooManyTries,
    UnknownEntry,
    UnknownPerson,
)
from tests.support.web_clients import open_logins, somebody

PASSWORD = "correct horse battery staple"
HERE = "192.0.2.7"
KNIFE, GUN = "knife", "gun"


def told(sessions: Sessions, event: str) -> list[dict[str, Any]]:
    """The details of every entry of one kind, oldest first."""
    rows = select(LedgerEntry.details).where(LedgerEntry.event == event).order_by(LedgerEntry.id)
    with sessions.begin() as session:
        return list(session.scalars(rows))


def failures(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return len(session.scalars(select(LoginFailure.id)).all())


def sign_in(sessions: Sessions, login: str) -> str:
    """A session without the password's cost."""
    with sessions.begin() as session:
        return open_session(session, accounts.person_named(sessions, login), HERE, "test", hours=1)


def at_once(number: int, act: Callable[[int], object]) -> list[FilterServiceError]:
    """Do it so many times side by side; the errors of ours that came of it."""

    ready = Barrier(number)

    def guarded(n: int) -> FilterServiceError | None:
        ready.wait()
        try:
            act(n)
        except FilterServiceError as error:
            return error
        return None

    with ThreadPoolExecutor(number) as pool:
        return [error for error in pool.map(guarded, range(number)) if error is not None]


def test_the_right_password_opens_a_session(sessions: Sessions) -> None:
    accounts.add_person(sessions, " Ada@Example.org ", Profile(Role.ADMIN), PASSWORD, "service")
    token = accounts.authenticate(sessions, "ADA@example.org", PASSWORD, HERE)
    found = accounts.person_of(sessions, token)
    assert found is not None
    assert found.login == "ada@example.org"
    assert told(sessions, "signed in") == [{"address": HERE, "by": "password"}]


def test_neither_password_nor_token_is_kept(sessions: Sessions, owner: Engine) -> None:
    accounts.add_person(sessions, "ada", Profile(Role.ADMIN), PASSWORD, "service")
    token = accounts.authenticate(sessions, "ada", PASSWORD, HERE)
    with owner.connect() as connection:
        tables = connection.scalars(text("SELECT relname FROM pg_stat_user_tables")).all()
        rows = [str(r) for t in tables for r in connection.execute(text(f'TABLE "{t}"'))]
    assert len([row for row in rows if "$argon2id$" in row]) == 1
    assert not [row for row in rows if PASSWORD in row or token in row]


def test_what_was_wrong_is_not_told(sessions: Sessions) -> None:
    accounts.add_person(sessions, "ada", Profile(Role.ADMIN), PASSWORD, "service")
    accounts.add_person(sessions, "vouched", Profile(Role.ADMIN), None, "service")
    said = set()
    for login, password in (("ada", "wrong"), ("nobody", PASSWORD), ("vouched", ""), ("\0", "")):
        with pytest.raises(NotSignedIn) as error:
            accounts.authenticate(sessions, login, password, HERE)
        said.add(str(error.value))
    assert len(said) == 1


def test_an_unknown_name_takes_as_long(sessions: Sessions) -> None:
    accounts.add_person(sessions, "ada", Profile(Role.ADMIN), PASSWORD, "service")

    def seconds(login: str) -> float:
        began = time.process_time()  # not by the clock: the machine may be busy
        with pytest.raises(NotSignedIn):
            accounts.authenticate(sessions, login, "wrong", HERE)
        return time.process_time() - began

    seconds("nobody")  # the first makes the hash that unknown names are compared with
    known, unknown = (min(seconds(login) for _ in range(2)) for login in ("ada", "nobody"))
    assert 0.5 < unknown / known < 2


def test_guessing_at_one_name_is_slowed_down(sessions: Sessions) -> None:
    for n in range(login_throttle.BY_NAME):
        login_throttle.count(sessions, "ada", f"192.0.2.{n}")
    with pytest.raises(TooManyTries, match="try again in 15 minutes"):
        accounts.authenticate(sessions, "ada", PASSWORD, HERE)
    login_throttle.count(sessions, "eve", HERE)


def test_guessing_from_one_network_is_slowed_down(sessions: Sessions) -> None:
    for n in range(login_throttle.BY_ADDRESS):
        login_throttle.count(sessions, f"guess{n}", f"2001:db8:0:1::{n:x}")
    with pytest.raises(TooManyTries):
        login_throttle.count(sessions, "ada", "2001:db8:0:1:ffff::1")
    login_throttle.count(sessions, "ada", "2001:db8:0:2::1")


def test_whoever_waits_may_try_again(sessions: Sessions, owner: Engine) -> None:
    for _ in range(login_throttle.BY_NAME):
        login_throttle.count(sessions, "ada", HERE)
    before = failures(sessions)
    with owner.begin() as connection:
        connection.execute(text("UPDATE login_failures SET at = at - interval '10 minutes'"))
    with pytest.raises(TooManyTries, match="try again in 5 minutes"):
        login_throttle.count(sessions, "ada", HERE)
    assert failures(sessions) == before
    with owner.begin() as connection:
        connection.execute(text("UPDATE login_failures SET at = at - interval '5 minutes'"))
    login_throttle.count(sessions, "ada", HERE)
    assert failures(sessions) == 2


def test_many_guesses_at_once_are_counted_one_by_one(sessions: Sessions) -> None:
    refused = []
    for address in (HERE, "192.0.2.8", "192.0.2.9"):  # the first opens the connections
        refused.append(len(at_once(15, lambda _, a=address: login_throttle.count(sessions, a, a))))  # type: ignore[misc]
    assert refused == [15 - login_throttle.BY_NAME] * 3


def test_a_right_password_is_no_failure(sessions: Sessions) -> None:
    accounts.add_person(sessions, "ada", Profile(Role.ADMIN), PASSWORD, "service")
    login_throttle.count(sessions, "eve", HERE)
    for _ in range(3):
        login_throttle.count(sessions, "ada", HERE)
    accounts.authenticate(sessions, "ada", PASSWORD, HERE)
    with sessions.begin() as session:
        keys = list(session.scalars(select(LoginFailure.key).order_by(LoginFailure.key)))
    assert keys == [f"address {HERE}"] * 4 + ["name eve"]


def test_a_session_ends_with_its_time(sessions: Sessions, owner: Engine) -> None:
    somebody(sessions, Role.MODERATOR)
    token = sign_in(sessions, "moderator")
    assert accounts.person_of(sessions, token) is not None
    with owner.begin() as connection:
        connection.execute(text("UPDATE logins SET expires_at = now() - interval '1 second'"))
    assert accounts.person_of(sessions, token) is None
    sign_in(sessions, "moderator")
    assert open_logins(sessions) == 1


def test_signing_out_ends_one_session(sessions: Sessions) -> None:
    somebody(sessions, Role.MODERATOR)
    first, second = (sign_in(sessions, "moderator") for _ in range(2))
    accounts.sign_out(sessions, first)
    assert accounts.person_of(sessions, first) is None
    assert accounts.person_of(sessions, second) is not None


def test_disabling_ends_every_session_and_log_in(sessions: Sessions) -> None:
    accounts.add_person(sessions, "ada", Profile(Role.SENIOR), PASSWORD, "service")
    token = sign_in(sessions, "ada")
    accounts.disable_person(sessions, "ada", "person root")
    assert accounts.person_of(sessions, token) is None
    assert open_logins(sessions) == 0
    with pytest.raises(NotSignedIn):
        accounts.authenticate(sessions, "ada", PASSWORD, HERE)
    accounts.enable_person(sessions, "ada", "person root")
    accounts.authenticate(sessions, "ada", PASSWORD, HERE)
    changes = [(d["login"], d["disabled"]) for d in told(sessions, "person changed")]
    assert changes == [("ada", True), ("ada", False)]


def test_a_new_password_ends_every_session(sessions: Sessions) -> None:
    somebody(sessions, Role.MODERATOR)
    token = sign_in(sessions, "moderator")
    accounts.set_password(sessions, "moderator", PASSWORD, "person root")
    assert accounts.person_of(sessions, token) is None
    assert PASSWORD not in str(told(sessions, "person changed"))


def test_the_last_admin_stays(sessions: Sessions) -> None:
    somebody(sessions, Role.ADMIN)
    with pytest.raises(Conflict, match="'admin' is the last admin"):
        accounts.disable_person(sessions, "admin", "person admin")
    with pytest.raises(Conflict, match="'admin' is the last admin"):
        accounts.change_person(sessions, "admin", Profile(Role.AUDITOR), "person admin")
    somebody(sessions, Role.ADMIN, "second")
    accounts.disable_person(sessions, "admin", "person second")


def test_two_admins_cannot_take_each_others_role_at_once(sessions: Sessions) -> None:
    for login in ("ada", "eve"):
        somebody(sessions, Role.ADMIN, login)
    for _ in range(5):
        for login in ("ada", "eve"):
            accounts.change_person(sessions, login, Profile(Role.ADMIN), "service")
        refused = at_once(
            2,
            lambda n: accounts.change_person(
                sessions, ("ada", "eve")[n], Profile(Role.MODERATOR), "service"
            ),
        )
        assert [type(error) for error in refused] == [Conflict]


def test_what_an_admin_says_of_somebody_is_kept_and_told(sessions: Sessions) -> None:
    somebody(sessions, Role.MODERATOR, "ada")
    profile = Profile(Role.SENIOR, "Ada", (KNIFE,), 5, "sub-1")
    changed = accounts.change_person(sessions, "ada", profile, "person root")
    assert Profile.of(changed) == Profile.of(accounts.person_named(sessions, "ada")) == profile
    accounts.change_person(sessions, "ada", profile, "person root")
    assert [d["role"] for d in told(sessions, "person changed")] == ["senior"]


AGAINST_THE_RULES = [
    ("", Profile(Role.ADMIN), PASSWORD),
    ("two words", Profile(Role.ADMIN), PASSWORD),
    ("a/b", Profile(Role.ADMIN), PASSWORD),
    ("nul\0", Profile(Role.ADMIN), PASSWORD),
    ("ada", Profile(Role.SERVICE), PASSWORD),
    ("ada", Profile(Role.ADMIN, name="two\nlines"), PASSWORD),
    ("ada", Profile(Role.ADMIN, subject=""), PASSWORD),
    ("ada", Profile(Role.ADMIN, reveal_cap=-1), PASSWORD),
    ("ada", Profile(Role.ADMIN, reveal_cap=2**31), PASSWORD),
    ("ada", Profile(Role.ADMIN, classes=("\0",)), PASSWORD),
    ("ada", Profile(Role.ADMIN, classes=()), PASSWORD),
    ("ada", Profile(Role.ADMIN), "short"),
    ("ada", Profile(Role.ADMIN), "x" * 1001),
    ("ada", Profile(Role.ADMIN), "aaaaaaaaaaaaaaaa"),
    ("ada.lovelace@example.org", Profile(Role.ADMIN), "Ada.Lovelace@example.org"),
]


def test_nobody_is_added_against_the_rules(sessions: Sessions) -> None:
    for login, profile, password in AGAINST_THE_RULES:
        with pytest.raises(InvalidRequest):
            accounts.add_person(sessions, login, profile, password, "service")
    assert accounts.everybody(sessions) == []


def test_a_name_and_a_subject_belong_to_one_person(sessions: Sessions) -> None:
    somebody(sessions, Role.ADMIN, "ada", subject="sub-1")
    with pytest.raises(Conflict, match="'ada' already"):
        accounts.add_person(sessions, "Ada", Profile(Role.ADMIN), None, "service")
    with pytest.raises(Conflict, match="'sub-1' already"):
        accounts.add_person(sessions, "eve", Profile(Role.ADMIN, subject="sub-1"), None, "service")
    with pytest.raises(UnknownPerson, match="'eve'"):
        accounts.person_named(sessions, "eve")


def test_everybody_is_listed_page_by_page(sessions: Sessions) -> None:
    for n in range(5):
        somebody(sessions, Role.MODERATOR, f"m{n}")
    first = accounts.everybody(sessions, limit=3)
    second = accounts.everybody(sessions, first[-1].login, limit=3)
    assert [p.login for p in first + second] == ["m0", "m1", "m2", "m3", "m4"]


def test_a_key_opens_until_it_is_revoked(sessions: Sessions) -> None:
    secret = accounts.add_key(sessions, "shop", "person root")
    key = accounts.key_of(sessions, secret)
    assert (key.name, secret[:12]) == ("shop", key.prefix)
    accounts.revoke_key(sessions, key.id, "person root")
    with pytest.raises(NotSignedIn, match="not valid") as error:
        accounts.key_of(sessions, secret)
    assert secret not in str(error.value)
    assert len(told(sessions, "key added")) == len(told(sessions, "key revoked")) == 1


def test_a_key_is_not_kept(sessions: Sessions) -> None:
    secret = accounts.add_key(sessions, "shop", "person root")
    with sessions.begin() as session:
        key = session.scalars(select(ApiKey)).one()
        kept = str(vars(key)) + str(told(sessions, "key added"))
    assert secret.startswith("fsk_")
    assert secret[12:] not in kept


def test_a_name_is_one_valid_keys(sessions: Sessions) -> None:
    secret = accounts.add_key(sessions, "shop", "person root")
    with pytest.raises(Conflict, match="'shop' is in use"):
        accounts.add_key(sessions, "shop", "person root")
    accounts.revoke_key(sessions, accounts.key_of(sessions, secret).id, "person root")
    accounts.add_key(sessions, "shop", "person root")
    assert [k.revoked_at is None for k, _ in accounts.keys(sessions)] == [False, True]


def test_there_are_keys_that_nobody_made(sessions: Sessions) -> None:
    for key_id in (0, 7, -1, 2**40):
        with pytest.raises(UnknownEntry):
            accounts.revoke_key(sessions, key_id, "service")
    for secret in ("", "fsk_", "fsk_" + "\udc80", "x" * 10_000):
        with pytest.raises(NotSignedIn):
            accounts.key_of(sessions, secret)
    with pytest.raises(InvalidRequest):
        accounts.add_key(sessions, "two\nlines", "service")


def test_every_look_is_told_and_an_image_counts_once_a_day(sessions: Sessions) -> None:
    ada = somebody(sessions, Role.MODERATOR, "ada")
    for item in (1, 1, 2, 1):
        accounts.reveal(sessions, ada, item, KNIFE, None)
    accounts.reveal(sessions, ada, 3, GUN, None)
    assert accounts.revealed_today(sessions, ada) == {GUN: 1, KNIFE: 2}
    assert [d["class"] for d in told(sessions, "revealed")] == [KNIFE] * 4 + [GUN]


def test_counting_begins_again_the_next_day(sessions: Sessions, owner: Engine) -> None:
    ada = somebody(sessions, Role.MODERATOR, "ada")
    accounts.reveal(sessions, ada, 1, KNIFE, 1)
    with owner.begin() as connection:
        connection.execute(text("UPDATE reveals SET day = day - 1"))
    accounts.reveal(sessions, ada, 2, KNIFE, 1)
    assert accounts.revealed_today(sessions, ada) == {KNIFE: 1}


def test_a_cap_holds_for_new_images(sessions: Sessions) -> None:
    ada = somebody(sessions, Role.MODERATOR, "ada")
    accounts.reveal(sessions, ada, 1, KNIFE, 2)
    accounts.reveal(sessions, ada, 2, GUN, 2)
    with pytest.raises(NotAllowed, match="2 images unblurred today and your cap is 2"):
        accounts.reveal(sessions, ada, 3, KNIFE, 2)
    accounts.reveal(sessions, ada, 2, GUN, 2)
    with sessions.begin() as session:
        assert [accounts.has_revealed(session, ada, item) for item in (1, 2, 3)] == [1, 1, 0]


@pytest.mark.parametrize(("own", "general", "left"), [(0, 9, False), (1, 0, True), (1, None, True)])
def test_a_persons_own_cap_comes_first(
    sessions: Sessions, own: int, general: int | None, left: bool
) -> None:
    ada = somebody(sessions, Role.MODERATOR, "ada", reveal_cap=own)
    refused = at_once(1, lambda _: accounts.reveal(sessions, ada, 1, KNIFE, general))
    assert bool(refused) is not left


def test_the_last_look_is_given_once(sessions: Sessions) -> None:
    ada = somebody(sessions, Role.MODERATOR, "ada")
    refused = at_once(8, lambda n: accounts.reveal(sessions, ada, n, KNIFE, 3))
    assert len(refused) == 5
    assert accounts.revealed_today(sessions, ada) == {KNIFE: 3}


def test_a_class_that_is_not_somebodys_stays_blurred(sessions: Sessions) -> None:
    ada = somebody(sessions, Role.MODERATOR, "ada", classes=(KNIFE,))
    accounts.reveal(sessions, ada, 1, KNIFE, None)
    with pytest.raises(NotAllowed, match="'gun'"):
        accounts.reveal(sessions, ada, 2, GUN, None)
    assert [d["class"] for d in told(sessions, "revealed")] == [KNIFE]
