"""The weights of the blend: what they are, within which bounds, and how a manifest shows them."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlendWeights:
    """Letters are those of the formula in worker/ranking/blend.py; all are unitless but `near_km`.

    Raises ValueError for a weight outside its bounds.
    """

    guests: float = 0.65
    """p: how much recent guests count."""
    guests_floor: float = 0.4
    """s: guests that a restaurant nobody has visited lately is treated as having."""
    distance: float = 0.8
    """d: how fast distance puts off."""
    near_km: float = 0.2
    """d0: kilometres within which distance hardly matters."""
    points: float = 0.85
    """c: how much a long history counts."""
    points_half: float = 3.0
    """m: own restaurants at which half of that counts."""
    points_floor: float = 0.05
    """e: what a candidate has that the history does not point to."""
    cuisine: float = 0.1
    """q: how much the user's cuisines count."""
    cuisine_floor: float = 0.3
    """f: what a cuisine far from the user's still has."""
    repeats_in_ten: int = 9
    """Repeats among each ten of `for_you` while there are enough; 10 puts all repeats first."""
    cuisine_cap: int = 5
    """At most so many of one cuisine among ten discoveries, on the first two pages."""

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"blend weight {name} is {value}, not within {low} to {high}")

    def uncapped(self) -> "BlendWeights":
        """The same without the cap on cuisines."""
        return dataclasses.replace(self, cuisine_cap=10)

    def to_json(self) -> dict[str, float | int]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, float | int]) -> "BlendWeights":
        """Weights that are missing have their defaults; unknown names are left out."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})  # type: ignore[arg-type]


BOUNDS: dict[str, tuple[float, float]] = {
    "guests": (0, 2),
    "guests_floor": (0.01, 100),
    "distance": (0, 3),
    "near_km": (0.01, 100),
    "points": (0, 3),
    "points_half": (0.1, 100),
    "points_floor": (0.001, 1),
    "cuisine": (0, 2),
    "cuisine_floor": (0.01, 10),
    "repeats_in_ten": (1, 10),
    "cuisine_cap": (1, 10),
}

DEFAULTS = BlendWeights()
