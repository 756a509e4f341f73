"""The CSV reader: RFC 4180 in full, and no line lost whatever stands in the file."""

import csv
import io
import re
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tastematch.csv_rows import MAX_LINE_BYTES, MAX_ROW_CHARS, MAX_ROW_LINES, Malformed
from tastematch.csv_rows import read_csv_rows as read_rows

LINE_ENDS = ["\n", "\r\n"]
# Enough of what matters to splitting, so that random texts hit it often.
TRICKY = st.text(alphabet='a,"\r\n é;', max_size=12)


def read(data: bytes, **options: int) -> list[tuple[int, list[str] | Malformed]]:
    return list(read_rows(io.BytesIO(data), **options))


def reasons(data: bytes) -> dict[int, str]:
    return {line: row.reason for line, row in read(data) if isinstance(row, Malformed)}


def fields(data: bytes) -> dict[int, list[str]]:
    return {line: row for line, row in read(data) if not isinstance(row, Malformed)}


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    width = draw(st.integers(min_value=2, max_value=4))
    text = st.one_of(TRICKY, st.text(st.characters(exclude_categories=["Cs"])))
    row = st.lists(text, min_size=width, max_size=width)
    return draw(st.lists(row, min_size=1, max_size=6))


class TestWellFormed:
    @given(
        tables(),
        st.sampled_from(LINE_ENDS),
        st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
        st.booleans(),
        st.integers(min_value=1, max_value=40),
    )
    def test_reads_back_what_csv_writes(
        self, table: list[list[str]], line_end: str, quoting: int, ends: bool, block: int
    ) -> None:
        # The writer quotes a lone carriage return only where it is part of the line end.
        if line_end == "\n":
            quoting = csv.QUOTE_ALL
        file = io.StringIO(newline="")
        csv.writer(file, lineterminator=line_end, quoting=quoting).writerows(table)
        text = file.getvalue() if ends else file.getvalue().removesuffix(line_end)
        read_back = read(text.encode(), block_bytes=block)
        assert [row for _, row in read_back] == table
        starts = [1]
        for row in table[:-1]:
            starts.append(starts[-1] + 1 + sum(field.count("\n") for field in row))
        assert [line for line, _ in read_back] == starts

    @pytest.mark.parametrize("line_end", LINE_ENDS)
    def test_line_ends_and_byte_order_mark_are_no_part_of_fields(self, line_end: str) -> None:
        text = line_end.join(["id,name", '1,"x"', "2,y", '"3","z"', ""])
        expected = {1: ["id", "name"], 2: ["1", "x"], 3: ["2", "y"], 4: ["3", "z"]}
        assert fields(text.encode()) == expected
        assert fields(text.encode("utf-8-sig")) == expected
        assert fields(text.encode().rstrip()) == expected

    def test_line_breaks_inside_quotes_are_kept_and_counted(self) -> None:
        data = b'id,name,note\r\n1,"A\r\nB","x\ry"\r\n2,b,c\r\n'
        assert fields(data) == {
            1: ["id", "name", "note"],
            2: ["1", "A\r\nB", "x\ry"],
            4: ["2", "b", "c"],
        }

    def test_empty_lines_are_left_out_and_counted(self) -> None:
        assert fields(b"\n\r\nid,name\n\n1,x\r\n\r\n\n2,y\n\n") == {
            3: ["id", "name"],
            5: ["1", "x"],
            8: ["2", "y"],
        }

    def test_only_line_feeds_end_lines(self) -> None:
        name = "a\x0b\x0c\x1c\x85\u2028\u2029b"
        assert fields(f"id,name\n1,{name}\n".encode())[2] == ["1", name]

    def test_quoted_fields_may_be_empty_and_hold_quotes(self) -> None:
        data = b'id,a,b\n1,"",""""\n2,"""x""","y,""z"""\n"","",""\n'
        assert fields(data) == {
            1: ["id", "a", "b"],
            2: ["1", "", '"'],
            3: ["2", '"x"', 'y,"z"'],
            4: ["", "", ""],
        }

    def test_long_fields_pass_whole(self) -> None:
        for note in ("x" * 200_000, '""' * 200_000, "é" * 300_000):
            text = f'id,note\n1,a\n2,"{note}"\n3,{note.replace(chr(34), "")}\n4,b\n'
            read_back = fields(text.encode())
            assert read_back[3] == ["2", note.replace('""', '"')]
            assert list(read_back) == [1, 2, 3, 4, 5]

    def test_nothing_but_empty_lines_has_no_rows(self) -> None:
        assert read(b"") == []
        assert read(b"\xef\xbb\xbf") == []
        assert read(b"\r\n\n") == []


class TestMalformed:
    def test_an_unclosed_quote_costs_one_row(self) -> None:
        lines = ["id,name", *(f"{i},n{i}" for i in range(1, 1001))]
        lines[10] = '10,"n10'
        data = ("\n".join(lines) + "\n").encode()
        assert list(reasons(data)) == [11]
        assert "quote opened in this line is not closed" in reasons(data)[11]
        assert list(fields(data)) == [line for line in range(1, 1002) if line != 11]

    def test_an_unclosed_quote_near_the_end_costs_one_row(self) -> None:
        data = b'id,name\n1,a\n2,"b\n3,c\n4,d'
        assert list(reasons(data)) == [3]
        assert list(fields(data)) == [1, 2, 4, 5]

    def test_an_unclosed_quote_before_a_quoted_row_costs_one_row(self) -> None:
        data = b'id,name\n1,"a\n2,"b"\n3,c\n'
        assert "1 lines further down" in reasons(data)[2]
        assert fields(data) == {1: ["id", "name"], 3: ["2", "b"], 4: ["3", "c"]}

    def test_a_second_quote_left_open_is_located(self) -> None:
        data = b'id,name,note\n1,"a\nb","c\n2,d,e\n'
        assert "the quote opened 1 lines further down is not closed" in reasons(data)[2]
        assert fields(data)[4] == ["2", "d", "e"]

    def test_a_row_ends_within_its_limits(self) -> None:
        def quoted(note: str) -> bytes:
            return f'id,note\n1,"{note}"\n2,b\n'.encode()

        longest = "\n" * (MAX_ROW_LINES - 1)
        assert fields(quoted(longest))[2] == ["1", longest]
        assert list(reasons(quoted(longest + "\n"))) == [2, 2 + MAX_ROW_LINES]
        widest = "x\n\n\n" + "y" * (MAX_ROW_CHARS - len('1,"x\n\n\n"'))
        assert fields(quoted(widest))[2] == ["1", widest]
        assert list(reasons(quoted(widest + "y"))) == [2, 5]

    def test_a_line_ends_within_its_limit(self) -> None:
        for letter in ("x", "🍜"):
            widest = letter * (MAX_ROW_CHARS - len("1,"))
            assert fields(f"id,note\n1,{widest}\n2,b\n".encode())[2] == ["1", widest]
            for excess in (1, MAX_LINE_BYTES):
                data = f"id,note\n1,{widest}{letter * excess}\n2,b\n".encode()
                assert reasons(data) == {2: "the line is longer than 1,048,576 characters"}
                assert fields(data)[3] == ["2", "b"]

    def test_a_file_without_line_ends_is_not_held_in_memory(self) -> None:
        class Endless(io.RawIOBase):
            def __init__(self, size_bytes: int) -> None:
                self.left = size_bytes

            def read(self, size: int = -1) -> bytes:
                size = min(size, self.left)
                self.left -= size
                return b"x" * size

        tracemalloc.start()
        ((line, row),) = read_rows(Endless(40 * MAX_LINE_BYTES))
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert line == 1
        assert isinstance(row, Malformed)
        assert peak_bytes < 5 * MAX_LINE_BYTES

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (b"1", "has 1 field, the header has 2"),
            (b"1,a,b", "has 3 fields, the header has 2"),
            (b'1,"a",b', "has 3 fields, the header has 2"),
            (b"1,a\rb", "carriage return stands outside quotes"),
            (b'1,"a"\rb', "carriage return stands outside quotes"),
            (b'1\r2,"a"', "carriage return stands outside quotes"),
            (b'"1"\r,"a"', "carriage return stands outside quotes"),
            (b'1,12" pizza', "quote stands inside a field without quotes"),
            (b'1, "a"', "quote stands inside a field without quotes"),
            (b'1,a"b"', "quote stands inside a field without quotes"),
            (b'1,"a"b', "text follows the closing quote"),
            (b'"1" ,"a"', "text follows the closing quote"),
            (b'1,"a"b"c"', "text follows the closing quote"),
            (b"1,caf\xe9", r"not UTF-8 \(byte 0xE9\).*Latin-1"),
            (b'1,"caf\xe9"', r"not UTF-8 \(byte 0xE9\).*Latin-1"),
            (b'1,"a\ncaf\xe9"', r"not UTF-8 \(byte 0xE9\).*Latin-1"),
            (b'1,"caf\xe9\na"', r"not UTF-8 \(byte 0xE9\).*Latin-1"),
            (b"1,\xed\xa0\x80", "not UTF-8"),
            (b"1,\xc0\x80", "not UTF-8"),
            (b"\xff\xfe1\x00,\x00", "UTF-16"),
        ],
    )
    @pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
    def test_a_bad_row_is_told_and_its_neighbours_are_read(
        self, row: bytes, reason: str, line_end: bytes
    ) -> None:
        data = line_end.join([b"id,name", "7,é".encode(), row, b"9,z", b""])
        ((line, told),) = reasons(data).items()
        assert line == 3
        assert re.search(reason, told)
        assert all(read(data, block_bytes=block) == read(data) for block in range(1, 20))
        assert list(fields(data).values()) == [["id", "name"], ["7", "é"], ["9", "z"]]

    @given(st.binary(max_size=60), st.integers(min_value=1, max_value=8))
    @example(b'id,b\n"', 1)
    @example(b'id,b\r\n1,"a\r\nb\r\n2,"', 3)
    def test_block_size_changes_nothing(self, data: bytes, block: int) -> None:
        assert read(data, block_bytes=block) == read(data)

    @given(
        st.lists(st.sampled_from(['"', '""', ",", "a", "\n", "\r\n", "\r", "é"]), max_size=40),
        st.integers(min_value=1, max_value=9),
    )
    def test_no_line_is_lost(self, pieces: list[str], block: int) -> None:
        text = "a,b\n" + "".join(pieces)
        rows = read(text.encode(), block_bytes=block)
        assert rows == read(text.encode())
        left = dict(enumerate(text.split("\n"), 1))
        for line, row in rows:
            breaks = 0 if isinstance(row, Malformed) else sum(f.count("\n") for f in row)
            for covered in range(line, line + breaks + 1):
                del left[covered]
        assert set(left.values()) <= {"", "\r"}
