import gzip
from itertools import pairwise

import numpy as np
import pytest

from shared.errors import DatasetError
from shared.settings import load_settings
from worker.evaluation import child
from worker.evaluation.lightgcn import read_folder


def write(folder, *, train: str, test: str):
    (folder / "train.txt").write_text(train)
    (folder / "test.txt").write_text(test)
    return folder


def rows_of(indptr, values):
    return [values[a:b].tolist() for a, b in pairwise(indptr.tolist())]


def test_users_and_items_get_rows(tmp_path):
    # User 7 stands on two lines, 8 has nothing to learn from, 9 nothing to be judged by.
    found = read_folder(
        write(tmp_path, train="7 30 10\n9 20\n\n7 10 20\n5\n", test="8 40\n7 40 30\n")
    )
    assert found.train.user_ids.tolist() == [7, 8, 9]
    assert found.train.restaurant_ids.tolist() == [10, 20, 30, 40]
    assert rows_of(found.train.indptr, found.train.restaurants) == [[0, 1, 2], [], [1]]
    assert found.users.tolist() == [0, 1]
    assert rows_of(found.indptr, found.targets) == [[2, 3], [3]]
    assert found.orders.tolist() == [3, 0]
    assert found.restaurant_orders.tolist() == [1, 2, 1, 0]


def test_the_result_has_no_list_and_counts_everybody(tmp_path):
    """User 8 has nothing to learn from, and counts all the same, as LightGCN counts it."""
    write(tmp_path, train="7 1 2\n9 1 2 3\n", test="7 3\n8 1\n")
    order = {"data": str(tmp_path), "folder": str(tmp_path), "max_users": None, "seed": 1}
    settings = load_settings({"TASTEMATCH_DATA_DIR": str(tmp_path)})
    answer = child.read_folder(order, settings, lambda done: None)
    assert answer["splits"] == {"lightgcn": {"users": 2, "targets": 2, "judged_users": 2}}
    order |= {"algorithm": "item-graph", "split": "lightgcn", "counts": answer["counts"]}
    (result,) = child.run_algorithm(order, settings, lambda done: None)
    assert (result["list"], result["split"], result["users"]) == (None, "lightgcn", 2)
    assert (result["recall_at_20"], result["ndcg_at_20"]) == (0.5, 0.5)


def test_packed_files_read_the_same(tmp_path):
    plain = read_folder(write(tmp_path, train="1 2 3\n", test="1 4\n"))
    packed = tmp_path / "packed"
    packed.mkdir()
    for name in ("train", "test"):
        text = (tmp_path / f"{name}.txt").read_bytes()
        (packed / f"{name}.txt.gz").write_bytes(gzip.compress(text))
    again = read_folder(packed)
    assert np.array_equal(again.train.restaurants, plain.train.restaurants)
    assert np.array_equal(again.targets, plain.targets)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("1 2\n3 x4\n", "line 2: 'x4' is not a number"),
        ("1 2\n\n3 -4\n", "line 3: '-4' is not a number"),
        ("1,2,3\n", "line 1: '1,2,3' is not a number"),
        ("1 1.5\n", "line 1: '1.5' is not a number"),
        ("1 nan\n", "line 1: 'nan' is not a number"),
        ("1 " + "9" * 40 + "\n", "line 1: a number is too large"),
        ("1 \N{SUPERSCRIPT TWO}\n", r"line 1: '\\xc2\\xb2' is not a number"),
        ("1 \0\n", r"line 1: '\x00' is not a number"),
    ],
)
@pytest.mark.parametrize("name", ["train", "test"])
def test_a_bad_line_is_named(tmp_path, name, bad, reason):
    write(tmp_path, **{"train": "1 2\n", "test": "1 3\n", name: bad})
    with pytest.raises(DatasetError) as raised:
        read_folder(tmp_path)
    assert raised.value.message == f"{name}.txt, {reason}"


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(DatasetError, match="is not a folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"neither train\.txt nor train\.txt\.gz"):
        read_folder(tmp_path)
    write(tmp_path, train="\n1\n", test="1 2\n")
    with pytest.raises(DatasetError, match=r"train\.txt holds no interactions"):
        read_folder(tmp_path)
    (tmp_path / "train.txt").unlink()
    for content in (b"no gzip", gzip.compress(b"1 2 3\n" * 1000)[:-20]):
        (tmp_path / "train.txt.gz").write_bytes(content)
        with pytest.raises(DatasetError, match=r"train\.txt\.gz is not a whole gzip file"):
            read_folder(tmp_path)


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("worker.evaluation.lightgcn.MAX_LINE_BYTES", 100)
    write(tmp_path, train="1 2\n" + "1 " * 60, test="1 3\n")
    with pytest.raises(DatasetError, match=r"train\.txt, line 2: longer than 100 bytes"):
        read_folder(tmp_path)
