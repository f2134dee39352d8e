"""Tables of clients, people, log-ins and API keys."""

from datetime import date, datetime

from sqlalchemy import ARRAY, VARCHAR, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from filter_service.db.tables.columns import Digest, Table, big_id, now, of_client, sha256, small_id


class Client(Table):
    """A client, which submits with its API keys and sees nothing of the others."""

    __tablename__ = "clients"
    id: Mapped[small_id]
    name: Mapped[str] = mapped_column(unique=True)
    created_by: Mapped[str]
    created_at: Mapped[now]


class Person(Table):
    """A user account; its password is hashed, or an identity provider vouches."""

    __tablename__ = "people"
    id: Mapped[small_id]
    login: Mapped[str] = mapped_column(unique=True, comment="Lower case.")
    name: Mapped[str]
    role: Mapped[str]
    password_hash: Mapped[str | None]
    subject: Mapped[str | None] = mapped_column(
        unique=True, comment="Who this is at the identity provider."
    )
    classes: Mapped[list[str] | None] = mapped_column(
        ARRAY(VARCHAR), comment="Names of the classes this person may see; null: all."
    )
    reveal_cap: Mapped[int | None] = mapped_column(comment="Unblurred images a day; null: any.")
    created_at: Mapped[now]
    disabled_at: Mapped[datetime | None]


class Login(Table):
    """An open session of a browser, known by its token's digest."""

    __tablename__ = "logins"
    digest: Mapped[str] = mapped_column(Digest, primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    created_at: Mapped[now]
    expires_at: Mapped[datetime]


class LoginFailure(Table):
    """A refused log-in, by name and by address, so that guessing can be slowed down."""

    __tablename__ = "login_failures"
    __table_args__ = (Index("login_failures_of_key", "key", "at"),)
    id: Mapped[big_id]
    key: Mapped[str]
    at: Mapped[now]


class ApiKey(Table):
    """A platform's key; only its digest is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (
        # The ledger calls a platform by its key's name.
        Index("one_key_of_name", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
    )
    id: Mapped[small_id]
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(comment="Its first letters, by which people know it.")
    digest: Mapped[sha256]
    created_by: Mapped[str]
    created_at: Mapped[now]
    revoked_at: Mapped[datetime | None]
    client_id: Mapped[of_client]
    all_clients: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="The operator's own: it sees what every client has."
    )
    policies: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="It may propose and activate policies."
    )


class Reveals(Table):
    """How many images somebody saw unblurred on one day, by class."""

    __tablename__ = "reveals"
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    class_name: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]
