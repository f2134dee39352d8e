"""Limits failed log-ins by name and by address, against password guessing."""

import math
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from filter_service.db.session import Sessions
from filter_service.db.tables import LoginFailure
from filter_service.errors import TooManyTries

WINDOW = timedelta(minutes=15)
BY_NAME = 10
BY_ADDRESS = 50  # an office behind one address has many who mistype


def count(sessions: Sessions, login: str, address: str) -> None:
    """Count one try as failed until it is forgiven; TooManyTries says how long to wait.

    A try that is refused is not counted: whoever waits gets in.
    """
    limits = _limits(login, address)
    with sessions.begin() as session:
        for key in sorted(limits):  # one after the other, or many at once would pass together
            session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))
        session.execute(delete(LoginFailure).where(LoginFailure.at < func.now() - WINDOW))
        wait = max(_wait(session, key, limit) for key, limit in limits.items())
        if wait > timedelta():
            raise TooManyTries(f"Too many log-ins failed: try again in {_in_words(wait)}.")
        session.add_all(LoginFailure(key=key) for key in limits)


def forgive(session: Session, login: str, address: str) -> None:
    """The password was right: forget the failures of the name, and one of the address."""
    name, place = _limits(login, address)
    session.execute(delete(LoginFailure).where(LoginFailure.key == name))
    last = select(func.max(LoginFailure.id)).where(LoginFailure.key == place).scalar_subquery()
    session.execute(delete(LoginFailure).where(LoginFailure.id == last))


def _limits(login: str, address: str) -> dict[str, int]:
    return {f"name {login}": BY_NAME, f"address {_place(address)}": BY_ADDRESS}


def _place(address: str) -> str:
    """Somebody with IPv6 has a whole /64 of addresses to guess from."""
    try:
        known = ip_address(address)
    except ValueError:
        return address
    if not isinstance(known, IPv6Address):
        return str(known)
    return str(known.ipv4_mapped or IPv6Address(int(known) >> 64 << 64))


def _wait(session: Session, key: str, limit: int) -> timedelta:
    failures = select(LoginFailure.at).where(LoginFailure.key == key)
    nth = failures.order_by(LoginFailure.at.desc()).offset(limit - 1).limit(1)
    found = session.execute(select(nth.scalar_subquery(), func.now())).one()
    oldest: datetime | None = found[0]
    now: datetime = found[1]
    return timedelta() if oldest is None else oldest + WINDOW - now


def _in_words(wait: timedelta) -> str:
    minutes = math.ceil(wait / timedelta(minutes=1))
    return "1 minute" if minutes == 1 else f"{minutes} minutes"
