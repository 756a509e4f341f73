"""Restaurants within a distance of a place, on a sphere of the Earth's mean radius.

The haversine formula (Sinnott, "Virtues of the Haversine", Sky & Telescope 68, 1984), right for
small distances, at the poles and across the 180th meridian. Places are held to about a metre.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from math import cos, degrees, radians, sin

from api.columns import Places
from api.filters import Circle

EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG


def within(places: Places, circle: Circle) -> Callable[[int], bool]:
    """Tells of an ordinal whether it lies within; of one without a place, that it does not."""
    latitudes, longitudes = places.latitudes, places.longitudes
    south, north = _band(circle)
    centre_longitude = circle.longitude
    centre_cosine = cos(radians(circle.latitude))
    centre_latitude = circle.latitude
    to_half_radians = radians(1) / 2
    to_radians = radians(1)
    limit = sin(circle.radius_km / EARTH_RADIUS_KM / 2) ** 2

    def is_within(ordinal: int) -> bool:
        latitude = latitudes[ordinal]
        if not south <= latitude <= north:
            return False
        # The period of sin² is 180°, so that longitudes need not be brought into one turn.
        across = sin((longitudes[ordinal] - centre_longitude) * to_half_radians)
        along = sin((latitude - centre_latitude) * to_half_radians)
        cosine = centre_cosine * cos(latitude * to_radians)
        return along * along + cosine * across * across <= limit

    return is_within


def found_within(places: Places, circle: Circle) -> Iterator[int]:
    """All ordinals that lie within, from south to north."""
    latitudes, northwards = places.latitudes, places.northwards
    south, north = _band(circle)
    start = bisect_left(northwards, south, key=latitudes.__getitem__)
    is_within = within(places, circle)
    for at in range(start, len(northwards)):
        ordinal = northwards[at]
        if not latitudes[ordinal] <= north:
            return
        if is_within(ordinal):
            yield ordinal


def _band(circle: Circle) -> tuple[float, float]:
    """No point within lies outside of these latitudes."""
    reach = degrees(circle.radius_km / EARTH_RADIUS_KM) * (1 + 1e-9)
    return circle.latitude - reach, circle.latitude + reach
