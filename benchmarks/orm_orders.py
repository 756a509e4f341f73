"""The way that pages of orders stand against: ORM objects, `selectinload` and `load_only`.

As one writes it with care: an async session, only the columns that are shown, two statements. It
is a route beside the product's own in the same process, so that server, guard and token check are
the same and only the way to the rows differs. `bench_writes` runs it, and a test holds the
product's pages against `page`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only, registry, relationship, selectinload

from api.answers import JSON_TYPE, Answer, as_response, length_of
from api.app import create_app
from api.auth import require_user
from api.deps import Resources, principal_of
from api.parameters import read_query
from api.routes.orders import PARAMETERS
from shared.db.models import Order, Restaurant
from shared.logs import configure_logs
from shared.settings import Settings, load_settings

ORM_PATH = "/orm/orders"

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


def application(settings: Settings) -> FastAPI:
    """The product's API with one route more, which does the same by the ORM."""
    app = create_app(settings)

    @app.get(ORM_PATH)
    async def list_orders(request: Request) -> Response:
        resources: Resources = request.app.state.resources
        user_id = require_user(await principal_of(request))
        values = read_query(request.scope["query_string"], PARAMETERS)
        limit: int = values["limit"]
        engine = await resources.open_engine()
        async with AsyncSession(engine) as session:
            orders = await page(session, user_id, limit + 1)
            items = [shown(order) for order in orders[:limit]]
        document = {"items": items, "next_cursor": None}
        body = orjson.dumps(document, option=orjson.OPT_UTC_Z)
        return as_response(Answer(200, [JSON_TYPE, length_of(body)], body))

    return app


def main() -> None:
    settings = load_settings({"DATABASE_URL": sys.argv[2], "TASTEMATCH_DATA_DIR": sys.argv[3]})
    configure_logs(service="api", level="WARNING")
    uvicorn.run(
        application(settings).middleware_stack,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="api.hot_protocol:HotProtocol",
        ws="none",
        proxy_headers=False,
        server_header=False,
        log_config=None,
        access_log=False,
    )


if __name__ == "__main__":
    main()
