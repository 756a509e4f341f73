"""The way that pages of orders stand against: ORM objects, `selectinload` and `load_only`.

A FastAPI application as one writes it with care: an async session, only the columns that are shown,
two statements, bytes by orjson. It checks no token. `bench_writes` runs it, and a test holds the
product's pages against `page`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import orjson
import uvicorn
from fastapi import FastAPI, Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import load_only, registry, relationship, selectinload

from shared.db.engine import async_engine
from shared.db.models import Order, Restaurant
from shared.settings import load_settings

_mapper = registry()


class OrmRestaurant:
    pass


class OrmOrder:
    pass


_mapper.map_imperatively(OrmRestaurant, Restaurant.__table__)
_mapper.map_imperatively(
    OrmOrder, Order.__table__, properties={"restaurant": relationship(OrmRestaurant)}
)


async def page(session: AsyncSession, user_id: int, limit: int) -> Sequence[OrmOrder]:
    """The newest orders of a user, each with its restaurant loaded."""
    columns = (OrmOrder.id, OrmOrder.order_date, OrmOrder.total_amount, OrmOrder.rating)
    shown = (OrmRestaurant.id, OrmRestaurant.name, OrmRestaurant.image_url)
    statement = (
        select(OrmOrder)
        .options(load_only(*columns), selectinload(OrmOrder.restaurant).load_only(*shown))
        .where(OrmOrder.user_id == user_id)
        .order_by(OrmOrder.order_date.desc(), OrmOrder.id.desc())
        .limit(limit)
    )
    return (await session.scalars(statement)).all()


def shown(order: OrmOrder) -> dict[str, object]:
    """The order as the product's API shows it."""
    restaurant = order.restaurant
    return {
        "id": order.id,
        "restaurant": {
            "id": restaurant.id,
            "name": restaurant.name,
            "image_url": restaurant.image_url,
        },
        "order_date": order.order_date,
        "total_amount": None if order.total_amount is None else float(order.total_amount),
        "rating": order.rating,
    }


def application(url: str, data_folder: str) -> FastAPI:
    app = FastAPI()
    settings = load_settings({"DATABASE_URL": url, "TASTEMATCH_DATA_DIR": data_folder})
    sessions = async_sessionmaker(async_engine(settings))

    @app.get("/orders")
    async def list_orders(user_id: int, limit: int = 20) -> Response:
        async with sessions() as session:
            orders = await page(session, user_id, limit + 1)
            items = [shown(order) for order in orders[:limit]]
        body = orjson.dumps({"items": items, "next_cursor": None}, option=orjson.OPT_UTC_Z)
        return Response(body, media_type="application/json")

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def main() -> None:
    uvicorn.run(
        application(sys.argv[2], sys.argv[3]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
    )


if __name__ == "__main__":
    main()
