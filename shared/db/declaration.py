"""How a table is declared: a class with an attribute for each column, and no objects of it.

It reads like SQLAlchemy's ORM and is typed like it, but only Core stands behind: nobody makes
objects of rows, and loading the ORM would cost every process a quarter of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import Column, ForeignKey, MetaData, Table

if TYPE_CHECKING:
    from sqlalchemy import FromClause

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def column(kind: Any, *constraints: ForeignKey, nullable: bool = False, **options: Any) -> Any:
    """A column that takes the name of the attribute it stands at."""
    return Column(kind, *constraints, nullable=nullable, **options)


class _TableOf(type):
    """Lets a class stand for its table in statements, as in `insert(Order)`."""

    __table__: FromClause

    def __clause_element__(cls) -> FromClause:
        return cls.__table__


class Base(metaclass=_TableOf):
    """A table as a class of typed columns; there are no objects of it."""

    metadata = MetaData(naming_convention=NAMING)
    __tablename__: ClassVar[str]
    __table_args__: ClassVar[tuple[Any, ...]] = ()

    def __init_subclass__(cls) -> None:
        columns = {name: each for name, each in vars(cls).items() if isinstance(each, Column)}
        for name, each in columns.items():
            each.name = each.key = name
        options = [each for each in cls.__table_args__ if isinstance(each, dict)]
        parts = [each for each in cls.__table_args__ if not isinstance(each, dict)]
        named = {key: value for each in options for key, value in each.items()}
        cls.__table__ = Table(cls.__tablename__, Base.metadata, *columns.values(), *parts, **named)
