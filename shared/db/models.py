"""The tables, as SQLAlchemy models.

Statements about a table live in a module of their own beside this one; nothing here opens a
connection. The same models serve SQLite and PostgreSQL: ids are 64-bit integers, instants are
UTC, amounts are exact to four decimals.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

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


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


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

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    cuisine_type: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    rating: Mapped[float | None] = mapped_column(Float)
    price_range: Mapped[int | None] = mapped_column(SmallInteger)
    city: Mapped[str | None] = mapped_column(Text)
    latitude: Mapped[float | None] = mapped_column(Float)
    longitude: Mapped[float | None] = mapped_column(Float)
    image_url: Mapped[str | None] = mapped_column(Text)
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=text("CURRENT_TIMESTAMP")
    )
    name_key: Mapped[str] = mapped_column(Key, server_default="")
    search_text: Mapped[str] = mapped_column(Text, server_default="")
    city_key: Mapped[str] = mapped_column(Text, server_default="")
    cuisine_keys: Mapped[str] = mapped_column(Text, server_default="")


class RestaurantTerm(Base):
    """What a restaurant is found by: prefixes of `term` are what visitors search for."""

    __tablename__ = "restaurant_terms"
    __table_args__ = ({"sqlite_with_rowid": False},)

    term: Mapped[str] = mapped_column(Key, primary_key=True)
    restaurant_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str | None] = mapped_column(Text)
    email: Mapped[str | None] = mapped_column(Text)
    city: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=text("CURRENT_TIMESTAMP")
    )


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = (
        CheckConstraint("rating >= 1 AND rating <= 5", name="rating"),
        CheckConstraint("total_amount >= 0", name="total_amount"),
        Index(None, "user_id", "order_date"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    user_id: Mapped[int] = mapped_column(Id, ForeignKey("users.id", ondelete="CASCADE"))
    restaurant_id: Mapped[int] = mapped_column(Id, ForeignKey("restaurants.id"))
    order_date: Mapped[datetime] = mapped_column(UtcDateTime)
    total_amount: Mapped[float | None] = mapped_column(Amount)
    rating: Mapped[float | None] = mapped_column(Float)


class Preferences(Base):
    """What a user says about taste: read for users without orders."""

    __tablename__ = "preferences"

    user_id: Mapped[int] = mapped_column(
        Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    cuisines: Mapped[list[str]] = mapped_column(JSON)
    price_ranges: Mapped[list[int]] = mapped_column(JSON)
    city: Mapped[str | None] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=text("CURRENT_TIMESTAMP")
    )


class HiddenRestaurant(Base):
    """A restaurant that a user does not want to be shown."""

    __tablename__ = "hidden_restaurants"

    user_id: Mapped[int] = mapped_column(
        Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    restaurant_id: Mapped[int] = mapped_column(
        Id, ForeignKey("restaurants.id"), primary_key=True, autoincrement=False
    )
    hidden_at: Mapped[datetime] = mapped_column(UtcDateTime)


class IdempotencyKey(Base):
    """The order that a request with this key made; the same request gets it again."""

    __tablename__ = "idempotency_keys"

    user_id: Mapped[int] = mapped_column(
        Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_hash: Mapped[str] = mapped_column(String(64))
    order_id: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


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

    subject: Mapped[str] = mapped_column(String(16), primary_key=True)
    subject_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    revision: Mapped[int] = mapped_column(BigInteger)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    told_revision: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    published_revision: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    published_version: Mapped[str | None] = mapped_column(String(64))
    claimed_until: Mapped[datetime | None] = mapped_column(UtcDateTime)


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

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))
    origin: Mapped[str] = mapped_column(String(32))
    progress: Mapped[float] = mapped_column(Float, server_default=text("0"))
    stage: Mapped[str | None] = mapped_column(String(32))
    stages: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    peak_rss_mb: Mapped[float | None] = mapped_column(Float)
    error: Mapped[str | None] = mapped_column(Text)
    snapshot_version: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    tries: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    rerun_origin: Mapped[str | None] = mapped_column(String(32))
    cancel_requested_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class WorkerRow(Base):
    """A worker process that says it is alive; `seen_at` is by the database's clock."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    host: Mapped[str] = mapped_column(Text)
    pid: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class Audit(Base):
    """One row for each action of an operator."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    actor: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)
