"""The routers of the API, in the order in which their paths are tried."""

from api.routes import (
    docs,
    explain,
    health,
    jobs,
    lists,
    metadata,
    order_batches,
    orders,
    preferences,
    recommendations,
    restaurant_writes,
    restaurants,
    snapshots,
    users,
)

ROUTERS = (
    health.router,
    recommendations.router,
    explain.router,
    metadata.router,
    restaurants.router,
    restaurant_writes.router,
    lists.router,
    orders.router,
    order_batches.router,
    preferences.router,
    users.router,
    jobs.router,
    snapshots.router,
    docs.router,
)
