"""Addresses in the operator's own networks: fetched only where a list names network and host."""

from typing import Any

import pytest

from filter_service.db.session import Sessions
from filter_service.db.tables import Item
from filter_service.egress.uri_rules import AllowList
from filter_service.errors import InvalidSettings, UnsafeAddress
from filter_service.intake.fetch_queue import fetch_due
from filter_service.intake.submissions import Submission, accept
from filter_service.settings import Settings
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from tests.support.bad_files import encoded, still
from tests.support.foreign_servers import body, serving
from tests.support.simple_classifier import POLICY

GOOD = encoded(still(), "png")


def fetched(sessions: Sessions, storage: Storage, **settings: Any) -> Item:
    """An item whose file lies on this very machine, under a name that only it knows."""
    with serving() as server:
        server.answers["/a.png"] = body(GOOD)
        given = Settings(fetch_hosts=(f"localhost:{server.port}",), **settings)
        uri = server.uri("/a.png", host="localhost")
        batch = accept(sessions, storage, lambda: None, [Submission(uri, uri=uri)], POLICY)
        fetch_due(sessions, storage, given)
    with sessions.begin() as session:
        return session.query(Item).where(Item.batch_id == batch).one()


def test_what_lies_in_a_named_network_is_fetched(sessions: Sessions, storage: Storage) -> None:
    item = fetched(sessions, storage, fetch_private=("127.0.0.0/8", "::1/128"))
    assert (item.verdict, item.image_id is not None) == (None, True)


def test_what_lies_in_another_network_is_not(sessions: Sessions, storage: Storage) -> None:
    item = fetched(sessions, storage, fetch_private=("10.1.0.0/16",))
    assert item.verdict is Verdict.UNDETERMINED
    assert "is not one of the public Internet" in (item.reason or "")


def test_without_networks_no_name_of_the_inside_is_a_host() -> None:
    with pytest.raises(InvalidSettings, match="'minio'"):
        Settings.load(fetch_hosts=("minio",))
    assert Settings.load(fetch_hosts=("minio",), fetch_private=("10.0.0.0/24",)).fetch_hosts
    with pytest.raises(UnsafeAddress, match="is a name inside some network"):
        AllowList.of(["example.org"]).check("https://files.internal/a.png")


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("10.1.2.3/16", "which is no network"),
        ("inside", "which is no network"),
        ("169.254.0.0/16", "169.254.169.254 lies"),
        ("0.0.0.0/0", "tells machines their credentials"),
        ("fd00::/8", "fd00:ec2::254 lies"),
    ],
)
def test_a_network_that_is_none_or_holds_credentials_is_refused(network: str, said: str) -> None:
    with pytest.raises(InvalidSettings, match=said):
        Settings.load(fetch_private=(network,))


def test_addresses_stay_refused_as_hosts() -> None:
    allowed = AllowList.of(["example.org"], inside=True)
    for host in ("127.0.0.1", "0x7f000001", "[::1]"):
        with pytest.raises(UnsafeAddress, match="IP address"):
            allowed.check(f"http://{host}/a.png")
