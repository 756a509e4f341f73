"""What is said of a run: in its manifest, what was counted and how; beside its model, the rest."""

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker import lists, memory
from worker.catalogue import coded_cuisines
from worker.inputs import Inputs
from worker.model_files import KeptModel
from worker.ranking.blend_weights import BlendWeights
from worker.ranking.filter_terms import FilterParameters
from worker.ranking.matrix import InteractionMatrix


def counts_of(
    found: Inputs,
    matrix: InteractionMatrix,
    users: lists.UserCounts,
    skipped: Counter[str],
) -> dict[str, Any]:
    reasons = {reason: number for reason, number in sorted(skipped.items()) if number}
    if matrix.skipped:
        reasons["orders of unknown users or restaurants"] = matrix.skipped
    return {
        "restaurants": found.projection.restaurants,
        "users": len(found.users.ids),
        "interactions": len(matrix.restaurants),
        "orders": matrix.orders,
        "cities": len(found.cities.names) - 1,
        "users_with_personal_lists": users.personal,
        "users_with_preference_lists": users.preferences,
        "users_with_five_restaurants": users.five,
        "users_with_five_restaurants_and_personal_lists": users.personal_of_five,
        "skipped": {"rows": sum(reasons.values()), "reasons": reasons},
    }


def kept_model(
    found: Inputs, matrix: InteractionMatrix, scores: NDArray[np.float32], chosen: memory.Plan
) -> KeptModel:
    """scores: popularity, shape (restaurants,)."""
    codes, names = coded_cuisines(found.catalogue.cuisines)
    return KeptModel(
        restaurant_ids=found.catalogue.ids,
        scores=scores,
        price_ranges=found.catalogue.price_ranges,
        cuisine_codes=codes,
        cuisine_names=names,
        cities=found.cities.names,
        as_of_seconds=matrix.as_of_seconds,
        head_length=chosen.head_length,
    )


def algorithm_of(
    chosen: memory.Plan, weights: BlendWeights, trials: dict[str, Any]
) -> dict[str, Any]:
    """trials: what the weights were chosen by, as it is shown."""
    parameters = {"k": chosen.k, "head_length": chosen.head_length, "blend": weights.to_json()}
    if not chosen.rank:
        return {"name": "item-graph", "parameters": parameters, "blend_trials": trials}
    filter_ = asdict(FilterParameters(rank=chosen.rank))
    parameters["filter"] = filter_
    return {"name": "sharpened", "parameters": parameters, "blend_trials": trials}
