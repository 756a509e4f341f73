"""The models of published snapshots, kept for folding in single users: a folder a version.

They are the worker's own and can be made anew by a precompute, so nothing else reads them and
losing one costs no list.
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.logs import get_logger
from worker.ranking.array_files import load_fields, save_fields

MODEL_FILES = ("graph-", "facts", "places", "surroundings-", "weights", "kept")

log = get_logger("worker.model")


@dataclass(frozen=True, slots=True)
class KeptModel:
    """What a folder says of itself, beside what `worker/ranker.py` reads there.

    Arrays of shape (restaurants,), in the model's rows.
    """

    restaurant_ids: NDArray[np.int64]
    """Ascending."""
    scores: NDArray[np.float32]
    """Popularity."""
    price_ranges: NDArray[np.uint8]
    cuisine_codes: NDArray[np.int32]
    cuisine_names: list[str]
    """What `coded_cuisines` made of the catalogue."""
    cities: list[str | None]
    """City names by code."""
    as_of_seconds: int
    """Where the snapshot counts ages from."""
    head_length: int


def describe_model(folder: Path, kept: KeptModel) -> None:
    """Makes the folder of a run's model one that `worker/refresh.py` opens."""
    save_fields(folder, "kept", kept)


def keep_model(folder: Path, *, home: Path, version: str) -> None:
    """Moves what a refresh needs of a described model to `home/version`.

    A folder that cannot be written costs the refreshes, not the snapshot.
    """
    target = home / version
    try:
        for file in folder.iterdir():
            if not file.name.startswith(MODEL_FILES):
                file.unlink()
        home.mkdir(parents=True, exist_ok=True)
        os.replace(folder, target)
    except OSError as error:
        log.warning("model.not_kept", version=version, reason=error.strerror)


def open_model(folder: Path) -> KeptModel:
    """Raises OSError where no model of this release is there."""
    return load_fields(folder, "kept", KeptModel)


def prune_models(home: Path, versions: Iterable[str]) -> None:
    """Removes the models of all but these versions."""
    kept = set(versions)
    if home.is_dir():
        for folder in home.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)
