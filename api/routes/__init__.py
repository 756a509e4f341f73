"""The routers of the API, in the order in which their paths are tried."""

from api.routes import health, lists, metadata, recommendations, restaurants

ROUTERS = (
    health.router,
    recommendations.router,
    metadata.router,
    restaurants.router,
    lists.router,
)
