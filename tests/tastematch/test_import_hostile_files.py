"""`tastematch import` of files as spreadsheets and foreign systems write them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.tastematch.importing import Importing, with_header

Write = Callable[..., Path]

PHOTO = "https://example.org/a.jpg"
RESTAURANT = f"1,Nonna,Pizza|Pasta,Warm,4.5,2,Rome,41.9,12.5,{PHOTO},true\n"
USER = "5,Ada,ada@example.org,Rome\n"
ORDER = "9,5,1,2026-01-31T19:30:00+01:00,12.50,4\n"
STORED = {
    "restaurants": [
        (1, "Nonna", "Pizza|Pasta", "Warm", 4.5, 2, "Rome", 41.9, 12.5, PHOTO, True),
    ],
    "users": [(5, "Ada", "ada@example.org", "Rome")],
    "orders": [(9, 5, 1, datetime(2026, 1, 31, 18, 30, tzinfo=UTC), 12.5, 4.0)],
}
ALL_IMPORTED = {f"{table}.csv": (1, 0, 0, 0) for table in STORED}


def full(**replaced: str) -> dict[str, str]:
    return {"restaurants": RESTAURANT, "users": USER, "orders": ORDER, **replaced}


def quoted(text: str) -> str:
    return "".join('"' + line.replace(",", '","') + '"\n' for line in text.splitlines())


@pytest.mark.parametrize("form", ["plain", "mark", "crlf", "quoted", "quoted crlf", "gzip"])
def test_every_form_of_a_file_gives_the_same_rows(
    importing: Importing, data: Write, form: str
) -> None:
    files = {table: with_header(table, rows).decode() for table, rows in full().items()}
    if "quoted" in form:
        files = {table: quoted(text) for table, text in files.items()}
    if "crlf" in form:
        files = {table: text.replace("\n", "\r\n") for table, text in files.items()}
    encoding = "utf-8-sig" if form == "mark" else "utf-8"
    folder = data(**{table: text.encode(encoding) for table, text in files.items()})
    ending = ""
    if form == "gzip":
        ending = ".gz"
        for table in files:
            path = folder / f"{table}.csv"
            path.with_name(f"{table}.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()

    outcome = importing(folder)

    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.summary == {name + ending: counts for name, counts in ALL_IMPORTED.items()}
    assert importing.everything() == STORED


def test_semicolons_are_refused_before_anything_is_written(
    importing: Importing, data: Write
) -> None:
    folder = data(
        restaurants=with_header("restaurants", RESTAURANT).replace(b",", b";"),
        users=USER,
    )
    outcome = importing(folder)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert outcome.stderr.count("\n") == 1
    assert "restaurants.csv" in outcome.stderr
    assert "lacks id, name; its fields seem to be separated by semicolons" in outcome.stderr
    assert importing.everything() == {"restaurants": [], "users": [], "orders": []}


def test_decimal_commas_make_bad_rows(importing: Importing, data: Write) -> None:
    folder = data(
        **full(
            restaurants=RESTAURANT + '2,Comma,,,"4,5",,,,,,\n',
            orders=ORDER + '10,5,1,2026-01-31T18:30:00Z,"1.234,50",\n',
        )
    )
    outcome = importing(folder)
    assert outcome.code == 0
    assert outcome.summary["restaurants.csv"] == outcome.summary["orders.csv"] == (1, 0, 0, 1)
    assert outcome.stderr.splitlines() == [
        "restaurants.csv, line 3: rating '4,5' holds a comma; decimals are written like 4.5",
        "orders.csv, line 3: total_amount '1.234,50' holds a comma; "
        "amounts are written like 1234.50",
    ]
    assert importing.everything() == STORED


def test_a_lost_quote_costs_one_row(importing: Importing, data: Write) -> None:
    rows = [f"{number},Place {number}" for number in range(1, 1001)]
    rows[9] = '10,"Place 10'
    folder = data(restaurants=("id,name\n" + "\n".join(rows) + "\n").encode())
    outcome = importing(folder)
    assert outcome.code == 0
    assert outcome.summary == {"restaurants.csv": (999, 0, 0, 1)}
    assert outcome.stderr.startswith("restaurants.csv, line 11: the quote opened in this line")
    assert outcome.stderr.count("\n") == 1
    assert importing.ids("restaurants") == [n for n in range(1, 1001) if n != 10]


def test_an_overlong_field_costs_one_row(importing: Importing, data: Write) -> None:
    rows = f"1,a,\n2,b,{'x' * 200_000}\n3,c,"
    outcome = importing(data(restaurants=f"id,name,description\n{rows}".encode()))
    assert outcome.code == 0
    assert outcome.summary == {"restaurants.csv": (2, 0, 0, 1)}
    assert outcome.stderr == (
        "restaurants.csv, line 3: description is 200,000 characters long; "
        "at most 65,535 are allowed\n"
    )
    assert importing.ids("restaurants") == [1, 3]


def test_an_id_in_scientific_notation_is_refused(importing: Importing, data: Write) -> None:
    outcome = importing(data(users="3.91E+16,,,\n4,,,\n"))
    assert outcome.summary == {"users.csv": (1, 0, 0, 1)}
    assert "users.csv, line 2: id '3.91E+16' is in scientific notation" in outcome.stderr
    assert "digits of the id are lost" in outcome.stderr
    assert importing.ids("users") == [4]


def test_a_nul_costs_one_row(importing: Importing, data: Write) -> None:
    outcome = importing(data(restaurants=b"id,name\n1,a\n2,a\x00b\n3,c\n"))
    assert outcome.summary == {"restaurants.csv": (2, 0, 0, 1)}
    assert outcome.stderr == ("restaurants.csv, line 3: name holds the control character U+0000\n")
    assert importing.ids("restaurants") == [1, 3]


def test_a_row_in_another_encoding_is_refused(importing: Importing, data: Write) -> None:
    folder = data(restaurants="id,name\n1,Café\n2,Caf".encode() + b"\xe9\n3,Zo\xc3\xab\n")
    outcome = importing(folder)
    assert outcome.summary == {"restaurants.csv": (2, 0, 0, 1)}
    assert "restaurants.csv, line 3: is not UTF-8 (byte 0xE9)" in outcome.stderr
    assert "Latin-1" in outcome.stderr
    assert importing.stored("restaurants", "id name") == [(1, "Café"), (3, "Zoë")]


def test_the_first_row_of_an_id_wins(importing: Importing, data: Write) -> None:
    rows = [f"{number},User {number},," for number in range(1, 9001)]
    rows[0], rows[1], rows[8998] = "7,First,,", "7,Second,,", "7,Third,,"
    folder = data(users="\n".join(rows) + "\n")
    outcome = importing(folder)
    assert outcome.summary == {"users.csv": (8997, 0, 0, 3)}
    assert outcome.stderr.splitlines() == [
        f"users.csv, line {line}: id 7 stands on an earlier line too" for line in (3, 8, 9000)
    ]
    stored = importing.everything()
    assert (7, "First", None, None) in stored["users"]

    again = importing(folder)

    assert again.summary == {"users.csv": (0, 0, 8997, 3)}
    assert importing.everything() == stored


def test_days_and_months_are_never_guessed(importing: Importing, data: Write) -> None:
    dates = ("03/08/2026", "15/04/2026", "1704164645")
    rows = "".join(f"{number},5,1,{date},,\n" for number, date in enumerate(dates, start=10))
    outcome = importing(data(**full(orders=ORDER + rows)))
    assert outcome.summary["orders.csv"] == (1, 0, 0, 3)
    for line, date in enumerate(dates, start=3):
        assert f"orders.csv, line {line}: order_date '{date}' " in outcome.stderr
    assert importing.everything() == STORED


def test_line_breaks_inside_quotes_are_kept(importing: Importing, data: Write) -> None:
    folder = data(
        restaurants=b'id,name,description\r\n1,"A\r\nB","x\ry"\r\n2,"Tab\there","a\\nb\\\\."\r\n'
        b"3,,bad\r\n"
    )
    outcome = importing(folder)
    assert outcome.summary == {"restaurants.csv": (2, 0, 0, 1)}
    assert outcome.stderr == "restaurants.csv, line 5: name is empty\n"
    assert importing.stored("restaurants", "id name description") == [
        (1, "A\r\nB", "x\ry"),
        (2, "Tab\there", "a\\nb\\\\."),
    ]


@pytest.mark.parametrize("rating", ["NaN", "inf", "-inf", "9", "-1", "1e400"])
def test_ratings_that_are_no_ratings_make_bad_rows(
    importing: Importing, data: Write, rating: str
) -> None:
    outcome = importing(data(restaurants=RESTAURANT + f"2,b,,,{rating},,,,,,\n"))
    assert outcome.summary == {"restaurants.csv": (1, 0, 0, 1)}
    assert f"restaurants.csv, line 3: rating '{rating}' is not" in outcome.stderr
    assert importing.stored("restaurants") == STORED["restaurants"]


def test_ids_that_javascript_cannot_hold_are_kept_and_counted(
    importing: Importing, data: Write
) -> None:
    near = (9007199254740991, 9007199254740992, 9007199254740993, 9223372036854775807)
    outcome = importing(data(restaurants="".join(f"{n},Place{',' * 9}\n" for n in near)))
    assert (outcome.code, outcome.summary) == (0, {"restaurants.csv": (4, 0, 0, 0)})
    assert outcome.stderr == (
        "warning: restaurants.csv: 3 ids are above 2^53-1 (9007199254740991), "
        "which JavaScript cannot hold\n"
    )
    assert importing.ids("restaurants") == list(near)
