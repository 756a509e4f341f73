"""The routers of the API, in the order in which their paths are tried."""

from api.routes import (
    docs,
    health,
    jobs,
    lists,
    metadata,
    orders,
    recommendations,
    restaurants,
    snapshots,
)

ROUTERS = (
    health.router,
    recommendations.router,
    metadata.router,
    restaurants.router,
    lists.router,
    orders.router,
    jobs.router,
    snapshots.router,
    docs.router,
)
