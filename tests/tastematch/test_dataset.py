"""A data set folder: the forms its files may have, and clear errors for whole files."""

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from shared.errors import DatasetError
from tastematch.dataset_rows import OrderRow, UserRow
from tests.tastematch.dataset_folders import DATA, ORDER_COLUMNS, folder, opened, rows_of


class TestForms:
    """The same rows in every form that a file may have."""

    LINES = (
        ORDER_COLUMNS,
        '1,2,3,2026-01-31T18:30:00Z,"9.50","5"',
        "2,2,3,2026-01-31T18:30:00Z,,",
        '3,2,3,2026-01-31T18:30:00Z,"","4.5"',
    )

    @pytest.mark.parametrize("has_mark", [False, True])
    @pytest.mark.parametrize("line_end", ["\n", "\r\n"])
    @pytest.mark.parametrize("ends", [False, True])
    @pytest.mark.parametrize("is_gzip", [False, True])
    def test_orders(
        self, tmp_path: Path, has_mark: bool, line_end: str, ends: bool, is_gzip: bool
    ) -> None:
        text = line_end.join(self.LINES) + (line_end if ends else "")
        data = text.encode("utf-8-sig" if has_mark else "utf-8")
        if is_gzip:
            (tmp_path / "orders.csv.gz").write_bytes(gzip.compress(data))
        else:
            (tmp_path / "orders.csv").write_bytes(data)
        at = datetime(2026, 1, 31, 18, 30, tzinfo=UTC)
        assert rows_of(opened(tmp_path).orders) == [
            OrderRow(1, 2, 3, at, Decimal("9.50"), 5.0, line=2),
            OrderRow(2, 2, 3, at, None, None, line=3),
            OrderRow(3, 2, 3, at, None, 4.5, line=4),
        ]

    def test_gzip_of_several_members(self, tmp_path: Path) -> None:
        data = gzip.compress(b"id\n1\n") + gzip.compress(b"2\n3")
        (tmp_path / "users.csv.gz").write_bytes(data)
        table = opened(tmp_path).users
        assert table is not None
        assert [row.id for row in table if isinstance(row, UserRow)] == [1, 2, 3]

    def test_files_that_are_absent_are_none(self, tmp_path: Path) -> None:
        dataset = opened(folder(tmp_path, users="id\n"))
        assert (dataset.restaurants, dataset.orders) == (None, None)
        assert rows_of(dataset.users) == []

    def test_unknown_columns_give_one_notice_for_a_file(self, tmp_path: Path) -> None:
        folder(tmp_path, users="id,phone,,fax\n1,2,3,4\n", restaurants="id,name\n1,a\n")
        dataset = opened(tmp_path)
        assert dataset.notices() == ["users.csv: unknown columns are left out: 'phone', 'fax'"]
        assert rows_of(dataset.users) == [UserRow(1, None, None, None, line=2)]

    def test_progress_ends_at_the_size_of_the_file(self, tmp_path: Path) -> None:
        content = "id\n" + "\n".join(map(str, range(80_000)))
        table = opened(folder(tmp_path, users=content)).users
        assert table is not None
        assert (table.bytes_read, table.size_bytes) == (0, len(content))
        seen = [table.bytes_read for _ in table]
        assert seen == sorted(seen)
        assert 0 < seen[0] < seen[-1]
        assert table.bytes_read == table.size_bytes


class TestFileErrors:
    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"there is no folder .*/missing$"):
            opened(tmp_path / "missing")

    def test_not_a_folder(self, tmp_path: Path) -> None:
        folder(tmp_path, users="id\n")
        with pytest.raises(DatasetError, match="is not a folder"):
            opened(tmp_path / "users.csv")

    def test_no_file_at_all(self, tmp_path: Path) -> None:
        (tmp_path / "Restaurants.xlsx").write_bytes(b"")
        with pytest.raises(DatasetError, match=r"none of restaurants\.csv, users\.csv and orders"):
            opened(tmp_path)

    def test_both_forms_of_a_file(self, tmp_path: Path) -> None:
        folder(tmp_path, users="id\n1\n")
        (tmp_path / "users.csv.gz").write_bytes(gzip.compress(b"id\n2\n"))
        with pytest.raises(DatasetError, match=r"both users\.csv and users\.csv\.gz"):
            opened(tmp_path)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", r"users\.csv is empty"),
            (b"\xef\xbb\xbf\r\n", r"users\.csv is empty"),
            (b"id;name\n1;a\n", r"users\.csv: the header 'id;name' lacks id; .* semicolons"),
            (b"id\tname\n1\ta\n", r"users\.csv: .* lacks id; .* tabs"),
            (b"1,Ann\n2,Bob\n", r"users\.csv: the header '1,Ann' lacks id$"),
            (b"id,name,ID\n", r"users\.csv: the header names 'id' twice"),
            (b"id,x,x\n", r"users\.csv: the header names 'x' twice"),
            (b'id,"name\n1,a\n', r"users\.csv, line 1 \(the header\): the quote opened"),
            (b"id,name\r1,a\r", r"users\.csv, line 1 .* carriage return"),
            ("id,né\n".encode("latin-1"), r"users\.csv, line 1 .* not UTF-8 .* Latin-1"),
            ("id,name\n1,a\n".encode("utf-16"), r"users\.csv, line 1 .* UTF-16"),
            (
                gzip.compress(b"id\n1\n", mtime=0),
                r"users\.csv holds gzip data; name it users\.csv\.gz",
            ),
        ],
    )
    def test_headers(self, tmp_path: Path, data: bytes, message: str) -> None:
        with pytest.raises(DatasetError, match=message) as caught:
            opened(folder(tmp_path, users=data))
        assert caught.value.message.isprintable()

    def test_all_missing_columns_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"restaurants\.csv: .* lacks id, name; .*semicolon"):
            opened(folder(tmp_path, restaurants="id;name;city\n1;a;b\n", users="id\n1\n"))
        with pytest.raises(DatasetError, match=r"lacks user_id, restaurant_id, order_date$"):
            opened(folder(tmp_path, restaurants="id,name\n", orders="id,date\n"))

    @pytest.mark.parametrize(
        "damage",
        [lambda data: data[: len(data) // 2], lambda data: data[:-8] + b"\0" * 8],
        ids=["cut off", "wrong checksum"],
    )
    def test_gzip_that_breaks_on_the_way(
        self, tmp_path: Path, damage: Callable[[bytes], bytes]
    ) -> None:
        content = "id\n" + "\n".join(str(i * 7919 % 10**9) for i in range(80_000))
        (tmp_path / "users.csv.gz").write_bytes(damage(gzip.compress(content.encode())))
        table = opened(tmp_path).users
        assert table is not None
        read: list[object] = []
        with pytest.raises(DatasetError, match=r"users\.csv\.gz: the gzip data is damaged") as told:
            read.extend(table)
        assert read
        assert f"after {len(read):,} rows" in told.value.message

    def test_what_is_no_gzip(self, tmp_path: Path) -> None:
        (tmp_path / "users.csv.gz").write_bytes(b"id\n1\n")
        with pytest.raises(DatasetError, match=r"users\.csv\.gz: the gzip data is damaged"):
            opened(tmp_path)

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "users.csv").mkdir()
        with pytest.raises(DatasetError, match=r"users\.csv cannot be read: Is a directory"):
            opened(tmp_path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
    def test_what_may_not_be_read(self, tmp_path: Path) -> None:
        folder(tmp_path, users="id\n")
        (tmp_path / "users.csv").chmod(0)
        with pytest.raises(DatasetError, match=r"users\.csv cannot be read: Permission denied"):
            opened(tmp_path)


# VmHWM, as the peak that getrusage gives also counts what the parent held at the fork.
MEASURE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from tastematch.dataset import open_dataset
table = open_dataset(Path(sys.argv[1]), now=datetime.now(UTC)).orders
rows = sum(1 for _ in table)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(rows, int(status["VmHWM"].split()[0]) / 1024)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    line = "{0},{0},{0},2026-01-31T18:30:00Z,12.50,4.5\n"
    peaks = []
    for count in (2_000, 200_000):
        place = tmp_path / str(count)
        place.mkdir()
        folder(place, orders=ORDER_COLUMNS + "\n" + "".join(map(line.format, range(count))))
        command = [sys.executable, "-c", MEASURE, str(place)]
        output = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=DATA.parent
        )
        rows, peak_mb = output.stdout.split()
        assert int(rows) == count
        peaks.append(float(peak_mb))
    assert peaks[1] < peaks[0] + 6
