"""Reads a folder of the LightGCN form: `train.txt[.gz]` and `test.txt[.gz]`.

A line is a user and the items that user has: `7 12 431 9`. A user may have several lines, or one
without items; a repeated pair counts once. Items of the test file that the training file lacks
count among the targets, as in LightGCN's own evaluation, though nothing can find them.
"""

import gzip
import math
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from shared.errors import DatasetError
from worker.evaluation.held_out import HeldOut
from worker.ranking.matrix import InteractionMatrix

MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_DIGITS = 18

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def read_folder(folder: Path) -> HeldOut:
    """The whole data set. Raises DatasetError, with file and line where there is one."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder")
    train_users, train_items = _read_pairs(_find(folder, "train"))
    test_users, test_items = _read_pairs(_find(folder, "test"))
    if not len(train_users):
        raise DatasetError(f"{_find(folder, 'train').name} holds no interactions")
    user_ids = np.unique(np.concatenate([train_users, test_users]))
    item_ids = np.unique(np.concatenate([train_items, test_items]))
    indptr, items = _rows(train_users, train_items, user_ids, item_ids)
    test_indptr, targets = _rows(test_users, test_items, user_ids, item_ids)
    train = InteractionMatrix(
        user_ids=user_ids,
        restaurant_ids=item_ids,
        indptr=indptr,
        restaurants=items,
        repeats=np.ones(len(items), np.float32),
        newest_days=np.zeros(len(items), np.uint16),
        as_of_seconds=0,
        half_life_days=math.inf,
        orders=len(items),
        skipped=0,
    )
    lengths = np.diff(test_indptr)
    users = np.flatnonzero(lengths).astype(np.int32)
    return HeldOut(
        train=train,
        users=users,
        indptr=np.concatenate([[0], np.cumsum(lengths[users])]).astype(np.int64),
        targets=targets,
        is_new=np.ones(len(targets), np.bool_),
        orders=np.diff(indptr)[users].astype(np.int32),
        restaurant_orders=np.bincount(items, minlength=len(item_ids)),
    )


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.txt", folder / f"{name}.txt.gz"):
        if path.is_file():
            return path
    raise DatasetError(f"{folder} has neither {name}.txt nor {name}.txt.gz")


def _read_pairs(path: Path) -> Pairs:
    users, items = array("q"), array("q")
    with _opened(path) as file:
        for number, line in _lines(file, path):
            words = line.split()
            if not words:
                continue
            if not all(map(bytes.isdigit, words)):
                wrong = next(word for word in words if not word.isdigit())
                shown = wrong[:40].decode("ascii", "backslashreplace")
                raise DatasetError(f"{path.name}, line {number}: {shown!r} is not a number")
            if max(map(len, words)) > MAX_DIGITS:
                raise DatasetError(f"{path.name}, line {number}: a number is too large")
            user, *rest = map(int, words)
            users.extend([user] * len(rest))
            items.extend(rest)
    return np.array(users, np.int64), np.array(items, np.int64)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as unpacked:
                yield unpacked  # type: ignore[misc]
        else:
            with path.open("rb") as file:
                yield file
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DatasetError(f"{path.name} is not a whole gzip file") from None
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read ({error.strerror})") from None


def _lines(file: IO[bytes], path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise DatasetError(f"{path.name}, line {number}: longer than {MAX_LINE_BYTES} bytes")
        yield number, line


def _rows(
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    user_ids: NDArray[np.int64],
    item_ids: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Pairs of ids -> (indptr, item rows) in user rows, ascending, each pair once."""
    keys = np.searchsorted(user_ids, users) * len(item_ids) + np.searchsorted(item_ids, items)
    keys = np.unique(keys)
    indptr = np.zeros(len(user_ids) + 1, np.int64)
    if len(keys):
        np.cumsum(np.bincount(keys // len(item_ids), minlength=len(user_ids)), out=indptr[1:])
        keys %= len(item_ids)
    return indptr, keys.astype(np.int32)
