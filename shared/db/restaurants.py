"""Statements about restaurants."""

from typing import Any

from sqlalchemy import Select, select

from shared.db.models import Restaurant


def restaurant_detail(restaurant_id: int) -> Select[*tuple[Any, ...]]:
    """Every column a visitor may see of one active restaurant: one row or none."""
    return select(
        Restaurant.id,
        Restaurant.name,
        Restaurant.cuisine_type,
        Restaurant.description,
        Restaurant.rating,
        Restaurant.price_range,
        Restaurant.city,
        Restaurant.latitude,
        Restaurant.longitude,
        Restaurant.image_url,
        Restaurant.is_active,
    ).where(Restaurant.id == restaurant_id, Restaurant.is_active.is_(True))
