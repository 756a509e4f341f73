"""Arrays in files of a folder: written by one task, mapped by others, in this process or another.

Mapped pages are shared by the processes that read them, and the system may drop them when memory
is short. The files are NumPy's own format (`.npy`) and are read with pickles refused.
"""

import json
import mmap
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from worker.ranking.matrix import InteractionMatrix, Transposed

T = TypeVar("T")


def new_array(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """A mapped array of zeros; what is written to it is in the file."""
    if 0 in shape:
        return save_array(path, np.zeros(shape, dtype))
    file = path.with_name(path.name + ".npy")
    return np.asarray(np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape))


def save_array(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    np.save(path.with_name(path.name + ".npy"), array, allow_pickle=False)
    return array


def load_array(path: Path, *, is_writable: bool = False) -> NDArray[Any]:
    """The array of a file, mapped; raises OSError where there is none."""
    file = path.with_name(path.name + ".npy")
    if not is_writable:
        with file.open("rb") as opened:
            np.lib.format.read_magic(opened)
            shape, _, dtype = np.lib.format.read_array_header_1_0(opened)
        if 0 in shape:
            return np.empty(shape, dtype)
    return np.asarray(np.load(file, mmap_mode="r+" if is_writable else "r", allow_pickle=False))


def map_raw(path: Path, dtype: DTypeLike) -> NDArray[Any]:
    """A file of nothing but numbers, mapped; it may be empty."""
    if not path.stat().st_size:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r"))


def release_pages(array: NDArray[Any]) -> None:
    """Lets go of what was touched of a mapped array; it is mapped again when it is read."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def save_fields(folder: Path, name: str, data: Any) -> None:
    """Writes a dataclass of arrays, numbers and texts to files that begin with `name`."""
    plain = {}
    for field in fields(data):
        value = getattr(data, field.name)
        if isinstance(value, np.ndarray):
            save_array(folder / f"{name}-{field.name}", value)
        else:
            plain[field.name] = value
    (folder / f"{name}.json").write_text(json.dumps(plain))


def load_fields(folder: Path, name: str, kind: type[T]) -> T:
    """What `save_fields` wrote; arrays are mapped."""
    plain = json.loads((folder / f"{name}.json").read_text())
    arrays = {
        field.name: load_array(folder / f"{name}-{field.name}")
        for field in fields(cast(Any, kind))
        if field.name not in plain
    }
    return kind(**plain, **arrays)


def save_matrix(matrix: InteractionMatrix, folder: Path) -> InteractionMatrix:
    """Moves a matrix to files; returns it mapped, so that the one in memory can be let go."""
    save_fields(folder, "matrix", matrix)
    load_matrix.cache_clear()
    return load_matrix(folder)


@lru_cache(maxsize=1)
def load_matrix(folder: Path) -> InteractionMatrix:
    """What `save_matrix` moved there, mapped once in a process: each mapping counts as memory."""
    return load_fields(folder, "matrix", InteractionMatrix)


def save_transposed(transposed: Transposed, folder: Path) -> Transposed:
    save_fields(folder, "transposed", transposed)
    return load_transposed(folder)


def load_transposed(folder: Path) -> Transposed:
    return load_fields(folder, "transposed", Transposed)
