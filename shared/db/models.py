"""The tables, as classes of typed columns (`declaration.py`).

Statements about a table live in a module of their own beside this one; nothing here opens a
connection. The same models serve SQLite and PostgreSQL: ids are 64-bit integers, instants are
UTC, amounts are exact to four decimals.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    Numeric,
    SmallInteger,
    String,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator

from shared.db.declaration import Base, column

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped

# SQLite gives rowid speed and auto-increment only to columns declared INTEGER.
Id = BigInteger().with_variant(Integer, "sqlite")
# Compared byte by byte on both: SQLite does so by itself.
Key = Text().with_variant(Text(collation="C"), "postgresql")
Amount = Numeric(14, 4).with_variant(Float, "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware instant: `timestamptz` on PostgreSQL, UTC text on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        assert value.tzinfo is not None, "instants carry their offset"
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        instant: datetime = value
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _catalogue_index(order: str, *columns: Any) -> Index:
    return Index(
        f"ix_restaurants_{order}",
        *columns,
        sqlite_where=text("is_active IS 1"),
        postgresql_where=text("is_active IS true"),
    )


class Restaurant(Base):
    """`name_key` and what follows it are derived (`shared.search_keys`): empty until they are."""

    __tablename__ = "restaurants"
    __table_args__ = (
        CheckConstraint("rating >= 0 AND rating <= 5", name="rating"),
        CheckConstraint("price_range >= 1 AND price_range <= 4", name="price_range"),
        # What pages of the catalogue walk along; a missing rating stands behind all others.
        _catalogue_index("name", "name_key", "id"),
        _catalogue_index("lowest", text("coalesce(rating, 6)"), "id"),
        _catalogue_index("highest", text("coalesce(-rating, 6)"), "id"),
        _catalogue_index("newest", "created_at", "id"),
    )

    id: Mapped[int] = column(Id, primary_key=True)
    name: Mapped[str] = column(Text)
    cuisine_type: Mapped[str | None] = column(Text, nullable=True)
    description: Mapped[str | None] = column(Text, nullable=True)
    rating: Mapped[float | None] = column(Float, nullable=True)
    price_range: Mapped[int | None] = column(SmallInteger, nullable=True)
    city: Mapped[str | None] = column(Text, nullable=True)
    latitude: Mapped[float | None] = column(Float, nullable=True)
    longitude: Mapped[float | None] = column(Float, nullable=True)
    image_url: Mapped[str | None] = column(Text, nullable=True)
    is_active: Mapped[bool] = column(Boolean, server_default=text("true"))
    created_at: Mapped[datetime] = column(UtcDateTime, server_default=text("CURRENT_TIMESTAMP"))
    name_key: Mapped[str] = column(Key, server_default="")
    search_text: Mapped[str] = column(Text, server_default="")
    city_key: Mapped[str] = column(Text, server_default="")
    cuisine_keys: Mapped[str] = column(Text, server_default="")


class RestaurantTerm(Base):
    """What a restaurant is found by: prefixes of `term` are what visitors search for."""

    __tablename__ = "restaurant_terms"
    __table_args__ = ({"sqlite_with_rowid": False},)

    term: Mapped[str] = column(Key, primary_key=True)
    restaurant_id: Mapped[int] = column(BigInteger, primary_key=True, autoincrement=False)


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = column(Id, primary_key=True)
    name: Mapped[str | None] = column(Text, nullable=True)
    email: Mapped[str | None] = column(Text, nullable=True)
    city: Mapped[str | None] = column(Text, nullable=True)
    created_at: Mapped[datetime] = column(UtcDateTime, server_default=text("CURRENT_TIMESTAMP"))


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = (
        CheckConstraint("rating >= 1 AND rating <= 5", name="rating"),
        CheckConstraint("total_amount >= 0", name="total_amount"),
        Index(None, "user_id", "order_date"),
    )

    id: Mapped[int] = column(Id, primary_key=True)
    user_id: Mapped[int] = column(Id, ForeignKey("users.id", ondelete="CASCADE"))
    restaurant_id: Mapped[int] = column(Id, ForeignKey("restaurants.id"))
    order_date: Mapped[datetime] = column(UtcDateTime)
    total_amount: Mapped[float | None] = column(Amount, nullable=True)
    rating: Mapped[float | None] = column(Float, nullable=True)


class Preferences(Base):
    """What a user says about taste: read for users without orders."""

    __tablename__ = "preferences"

    user_id: Mapped[int] = column(
        Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    cuisines: Mapped[list[str]] = column(JSON)
    price_ranges: Mapped[list[int]] = column(JSON)
    city: Mapped[str | None] = column(Text, nullable=True)
    updated_at: Mapped[datetime] = column(UtcDateTime, server_default=text("CURRENT_TIMESTAMP"))


class HiddenRestaurant(Base):
    """A restaurant that a user does not want to be shown."""

    __tablename__ = "hidden_restaurants"

    user_id: Mapped[int] = column(
        Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    restaurant_id: Mapped[int] = column(
        Id, ForeignKey("restaurants.id"), primary_key=True, autoincrement=False
    )
    hidden_at: Mapped[datetime] = column(UtcDateTime)


class IdempotencyKey(Base):
    """The order that a request with this key made; the same request gets it again."""

    __tablename__ = "idempotency_keys"

    user_id: Mapped[int] = column(
        Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    key: Mapped[str] = column(String(255), primary_key=True)
    body_hash: Mapped[str] = column(String(64))
    order_id: Mapped[int] = column(BigInteger)
    created_at: Mapped[datetime] = column(UtcDateTime, index=True)


class Change(Base):
    """What changed and when, until every snapshot contains it. A row outlives its subject."""

    __tablename__ = "changes"
    __table_args__ = (
        CheckConstraint("subject IN ('user', 'restaurant')", name="subject"),
        # Asked for several times a second, and nearly always empty.
        Index(
            "ix_changes_open",
            "changed_at",
            sqlite_where=text("published_revision < revision"),
            postgresql_where=text("published_revision < revision"),
        ),
    )

    subject: Mapped[str] = column(String(16), primary_key=True)
    subject_id: Mapped[int] = column(BigInteger, primary_key=True, autoincrement=False)
    revision: Mapped[int] = column(BigInteger)
    changed_at: Mapped[datetime] = column(UtcDateTime, index=True)
    told_revision: Mapped[int] = column(BigInteger, server_default=text("0"))
    published_revision: Mapped[int] = column(BigInteger, server_default=text("0"))
    published_version: Mapped[str | None] = column(String(64), nullable=True)
    claimed_until: Mapped[datetime | None] = column(UtcDateTime, nullable=True)


class JobRow(Base):
    """The truth about background work. At most one row a kind is queued or running."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="state"
        ),
        Index(
            "uq_jobs_active_kind",
            "kind",
            unique=True,
            sqlite_where=text("state IN ('queued', 'running')"),
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
        Index(None, "created_at", "id"),
    )

    id: Mapped[str] = column(String(32), primary_key=True)
    kind: Mapped[str] = column(String(32))
    state: Mapped[str] = column(String(16))
    origin: Mapped[str] = column(String(32))
    progress: Mapped[float] = column(Float, server_default=text("0"))
    stage: Mapped[str | None] = column(String(32), nullable=True)
    stages: Mapped[list[dict[str, Any]]] = column(JSON)
    peak_rss_mb: Mapped[float | None] = column(Float, nullable=True)
    error: Mapped[str | None] = column(Text, nullable=True)
    snapshot_version: Mapped[str | None] = column(String(64), nullable=True)
    created_at: Mapped[datetime] = column(UtcDateTime)
    started_at: Mapped[datetime | None] = column(UtcDateTime, nullable=True)
    finished_at: Mapped[datetime | None] = column(UtcDateTime, nullable=True)
    tries: Mapped[int] = column(Integer, server_default=text("0"))
    lease_owner: Mapped[str | None] = column(String(64), nullable=True)
    lease_expires_at: Mapped[datetime | None] = column(UtcDateTime, nullable=True)
    rerun_origin: Mapped[str | None] = column(String(32), nullable=True)
    cancel_requested_at: Mapped[datetime | None] = column(UtcDateTime, nullable=True)


class WorkerRow(Base):
    """A worker process that says it is alive; `seen_at` is by the database's clock."""

    __tablename__ = "workers"

    id: Mapped[str] = column(String(64), primary_key=True)
    kind: Mapped[str] = column(String(16))
    host: Mapped[str] = column(Text)
    pid: Mapped[int] = column(BigInteger)
    state: Mapped[str] = column(String(16))
    started_at: Mapped[datetime] = column(UtcDateTime)
    seen_at: Mapped[datetime] = column(UtcDateTime, index=True)


class Audit(Base):
    """One row for each action of an operator."""

    __tablename__ = "audit"

    id: Mapped[int] = column(Id, primary_key=True)
    at: Mapped[datetime] = column(UtcDateTime, index=True)
    actor: Mapped[str] = column(String(64))
    action: Mapped[str] = column(String(64))
    subject: Mapped[str] = column(Text)
    detail: Mapped[dict[str, Any]] = column(JSON)
