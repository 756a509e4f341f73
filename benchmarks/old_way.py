"""The way this product stands against: all restaurants as ORM objects, for every request.

A FastAPI application as one writes it first: an async session, `select(Restaurant)`, a response
model. It holds nothing back and wastes nothing on purpose. `bench_memory` runs and fills it.
"""

from __future__ import annotations

import random
import resource
import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Text, create_engine, insert, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

RESTAURANTS = 10_000
DESCRIPTION_BYTES = 2_000
MAX_MEMORY_BYTES = 4 * 1024**3  # so that the machine survives it
_WORDS = ("warm", "light", "bread", "slow", "fire", "river", "salt", "smoke", "lemon", "stone")


class Base(DeclarativeBase):
    pass


class Restaurant(Base):
    __tablename__ = "old_restaurants"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    cuisine_type: Mapped[str]
    description: Mapped[str] = mapped_column(Text)
    rating: Mapped[float]
    price_range: Mapped[int]
    city: Mapped[str]
    image_url: Mapped[str]


class RestaurantOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    cuisine_type: str
    description: str
    rating: float
    price_range: int
    city: str
    image_url: str


def fill(url: str) -> None:
    """Creates the table at a synchronous address, and its rows."""
    chance = random.Random(1)
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        for first in range(0, RESTAURANTS, 1_000):
            rows = [
                {
                    "id": number,
                    "name": f"Restaurant {number}",
                    "cuisine_type": "Ramen",
                    "description": " ".join(chance.choices(_WORDS, k=500))[:DESCRIPTION_BYTES],
                    "rating": 4.5,
                    "price_range": 2,
                    "city": f"City {number % 20}",
                    "image_url": f"https://images.example/{number}.jpg",
                }
                for number in range(first, first + 1_000)
            ]
            connection.execute(insert(Restaurant), rows)
    engine.dispose()


def application(url: str) -> FastAPI:
    """`url` names an asynchronous driver."""
    app = FastAPI()
    sessions = async_sessionmaker(create_async_engine(url, pool_size=16))

    @app.get("/restaurants", response_model=list[RestaurantOut])
    async def list_restaurants() -> list[Restaurant]:
        async with sessions() as session:
            return list((await session.scalars(select(Restaurant))).all())

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    uvicorn.run(
        application(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
    )


if __name__ == "__main__":
    main()
