"""What rows hold: their values, and why a row is bad."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from shared.columns import MAX_DESCRIPTION_CHARS
from tastematch.dataset import BadRow
from tastematch.dataset_rows import (
    MAX_AHEAD,
    OrderRow,
    RestaurantRow,
    UserRow,
)
from tests.tastematch.dataset_folders import (
    DATA,
    NOW,
    ORDER_COLUMNS,
    RESTAURANT_COLUMNS,
    bad,
    folder,
    opened,
    orders,
    restaurants,
    rows_of,
    users,
)


class TestRows:
    def test_a_restaurant_with_everything(self, tmp_path: Path) -> None:
        line = (
            '7," Chez ""Léa"" ", Thai | Vegan ,"Fresh, daily",4.5,2, Lyon ,45.76,4.84,'
            "https://img.example/7.jpg,TRUE"
        )
        assert restaurants(tmp_path, line) == [
            RestaurantRow(
                id=7,
                name='Chez "Léa"',
                cuisine_type="Thai|Vegan",
                description="Fresh, daily",
                rating=4.5,
                price_range=2,
                city="Lyon",
                latitude=45.76,
                longitude=4.84,
                image_url="https://img.example/7.jpg",
                is_active=True,
                line=2,
            )
        ]

    def test_a_restaurant_with_nothing_more_than_it_needs(self, tmp_path: Path) -> None:
        nothing = RestaurantRow(8, "x", *[None] * 8, is_active=True, line=2)
        assert restaurants(tmp_path, "8,x,,,,,,,,,") == [nothing]
        assert restaurants(tmp_path, "8,x, |, ,\t,  ,\u00a0, , , , ") == [nothing]
        assert restaurants(tmp_path, "8,x", columns="id,name") == [nothing]

    def test_users(self, tmp_path: Path) -> None:
        assert users(tmp_path, "1,Ann,ann@example.com, Paris ", "2,,,", "0,,,") == [
            UserRow(1, "Ann", "ann@example.com", "Paris", line=2),
            UserRow(2, None, None, None, line=3),
            UserRow(0, None, None, None, line=4),
        ]
        assert users(tmp_path, "5", "", "6", columns="id") == [
            UserRow(5, None, None, None, line=2),
            UserRow(6, None, None, None, line=4),
        ]

    def test_orders(self, tmp_path: Path) -> None:
        assert orders(
            tmp_path,
            "1,2,3,2026-01-31T18:30:00+01:00,12.3400,4.5",
            "2,2,3,2026-01-31T18:30:00Z,,",
        ) == [
            OrderRow(
                1, 2, 3, datetime(2026, 1, 31, 17, 30, tzinfo=UTC), Decimal("12.34"), 4.5, line=2
            ),
            OrderRow(2, 2, 3, datetime(2026, 1, 31, 18, 30, tzinfo=UTC), None, None, line=3),
        ]

    def test_columns_may_come_in_any_order_and_letter_case(self, tmp_path: Path) -> None:
        columns = " Order_Date,restaurant_id,note,USER_ID,id,"
        assert orders(tmp_path, "2026-01-31T18:30:00Z,3,x,2,1,", columns=columns) == [
            OrderRow(1, 2, 3, datetime(2026, 1, 31, 18, 30, tzinfo=UTC), None, None, line=2)
        ]

    def test_ids_keep_all_their_digits_and_large_ones_are_counted(self, tmp_path: Path) -> None:
        ids = [2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1]
        folder(tmp_path, users="id\n" + "\n".join(map(str, ids)))
        table = opened(tmp_path).users
        assert table is not None
        for _ in range(2):
            assert [row.id for row in table if isinstance(row, UserRow)] == ids
            assert (table.rows_read, table.large_ids) == (4, 3)

    @pytest.mark.parametrize("name", ["entree", "nyc-visits"])
    def test_real_data_is_read_whole(self, name: str) -> None:
        dataset = opened(DATA / name)
        assert dataset.notices() == []
        for table in (dataset.restaurants, dataset.users, dataset.orders):
            rows = rows_of(table)
            assert len(rows) > 3_000
            assert bad(rows) == {}

    def test_real_dirty_data_gives_bad_rows(self) -> None:
        rows = rows_of(opened(DATA / "entree" / "dirty").orders)
        assert len(rows) == 300
        assert set(bad(rows).values()) == {"restaurant_id '-1' is negative"}


class TestBadRows:
    @pytest.mark.parametrize(
        ("column", "text", "reason"),
        [
            ("id", "", "id is empty"),
            ("id", "-1", "id '-1' is negative"),
            (
                "id",
                "3.91E+16",
                "id '3.91E+16' is in scientific notation: digits of the id are lost",
            ),
            ("id", "9223372036854775808", "id '9223372036854775808' is above"),
            ("id", "1_000", "id '1_000' is not a whole number"),
            ("id", " 5", "id ' 5' has blanks"),
            ("name", "", "name is empty"),
            ("name", "  ", "name is empty"),
            ("name", "a\0b", "name holds the control character U+0000"),
            ("name", "a\x1b[31mb", "name holds the control character U+001B"),
            ("name", "x" * 201, "name is 201 characters long"),
            ("cuisine_type", "x" * 201, "cuisine_type is 201 characters long"),
            ("description", "x" * (MAX_DESCRIPTION_CHARS + 1), "description is 65,536 characters"),
            ("description", "\0", "description holds the control character"),
            ("rating", '"4,5"', "rating '4,5' holds a comma"),
            ("rating", "NaN", "rating 'NaN' is not a number"),
            ("rating", "inf", "rating 'inf' is not a number"),
            ("rating", "1e400", "rating '1e400' is not between 0 and 5"),
            ("rating", "9", "rating '9' is not between 0 and 5"),
            ("price_range", "5", "price_range '5' is not 1, 2, 3 or 4"),
            ("price_range", "medium", "price_range 'medium' is not 1, 2, 3 or 4"),
            ("city", "x" * 101, "city is 101 characters long"),
            ("latitude", "90.1", "latitude '90.1' is not between -90 and 90"),
            ("longitude", "-180.1", "longitude '-180.1' is not between -180 and 180"),
            ("image_url", "javascript:alert(1)", "image_url 'javascript:alert(1)' is not an http"),
            ("image_url", "data:image/png;base64", "image_url 'data:image/png;base64' is not an"),
            ("is_active", "yes", "is_active 'yes' is not true, false, 1 or 0"),
        ],
    )
    def test_restaurants(self, tmp_path: Path, column: str, text: str, reason: str) -> None:
        good = dict.fromkeys(RESTAURANT_COLUMNS.split(","), "") | {"id": "5", "name": "n"}
        wrong = ",".join((good | {column: text}).values())
        rows = restaurants(tmp_path, "1,a,,,,,,,,,", wrong, "3,c,,,,,,,,,")
        assert [type(row) for row in rows] == [RestaurantRow, BadRow, RestaurantRow]
        assert bad(rows)[3].startswith(reason)
        assert bad(rows)[3].isprintable()

    @pytest.mark.parametrize(
        ("column", "text", "reason"),
        [
            ("user_id", "", "user_id is empty"),
            ("restaurant_id", "12.0", "restaurant_id '12.0' is not a whole number"),
            ("order_date", "", "order_date '' is not a time"),
            ("order_date", "03/08/2026", "order_date '03/08/2026' leaves open which is day"),
            ("order_date", "15/04/2026", "order_date '15/04/2026' leaves open which is day"),
            ("order_date", "1704164645", "order_date '1704164645' is not a time"),
            ("order_date", "2026-01-31T18:30:00", "order_date '2026-01-31T18:30:00' has no time"),
            ("order_date", "2027-01-01T00:00:00Z", "order_date '2027-01-01T00:00:00Z' is more"),
            ("order_date", "9999-12-31T23:59:59-12:00", "order_date '9999-12-31T23:59:59-12:00'"),
            ("total_amount", '"1.234,50"', "total_amount '1.234,50' holds a comma"),
            ("total_amount", "-1", "total_amount '-1' is negative"),
            ("total_amount", "1e308", "total_amount '1e308' is not an amount"),
            ("rating", "0", "rating '0' is not between 1 and 5"),
            ("rating", "nan", "rating 'nan' is not a number"),
        ],
    )
    def test_orders(self, tmp_path: Path, column: str, text: str, reason: str) -> None:
        fields = ["5", "6", "7", "2026-01-31T18:30:00Z", "", ""]
        good = dict(zip(ORDER_COLUMNS.split(","), fields, strict=True))
        wrong = ",".join((good | {column: text}).values())
        right = ",".join(good.values())
        rows = orders(tmp_path, right, wrong, right)
        assert [type(row) for row in rows] == [OrderRow, BadRow, OrderRow]
        assert bad(rows)[3].startswith(reason)

    def test_users(self, tmp_path: Path) -> None:
        rows = users(tmp_path, "1,a,,", f"2,,{'x' * 255},", f"3,{'x' * 201},,", "4,,,\0", "x,,,")
        assert bad(rows) == {
            3: "email is 255 characters long; at most 254 are allowed",
            4: "name is 201 characters long; at most 200 are allowed",
            5: "city holds the control character U+0000",
            6: "id 'x' is not a whole number in ASCII digits",
        }

    def test_order_dates_may_be_a_day_ahead(self, tmp_path: Path) -> None:
        edge = NOW + MAX_AHEAD
        beyond = edge + timedelta(seconds=1)
        lines = [f"1,2,3,{at.isoformat()},," for at in (edge, beyond)]
        rows = orders(tmp_path, *lines)
        assert [type(row) for row in rows] == [OrderRow, BadRow]

    def test_lines_are_physical_ones_where_the_row_starts(self, tmp_path: Path) -> None:
        data = (
            b'id,name,description\r\n1,"A\r\nB","x\ry"\r\n\r\nx,bad,"1\r\n2"\r\n3,\xe9,\r\n'
            b'4,"open,\r\n5,e,\r\n6,f\r\n'
        )
        rows = rows_of(opened(folder(tmp_path, restaurants=data)).restaurants)
        first, *_ = rows
        assert isinstance(first, RestaurantRow)
        assert (first.name, first.description, first.line) == ("A\r\nB", "x\ry", 2)
        assert list(bad(rows)) == [5, 7, 8, 10]
        assert "not UTF-8 (byte 0xE9)" in bad(rows)[7]
        assert "quote opened in this line is not closed" in bad(rows)[8]
        assert bad(rows)[10] == "has 2 fields, the header has 3"
        assert {row.file for row in rows if isinstance(row, BadRow)} == {"restaurants.csv"}

    def test_a_file_all_in_latin_1_is_told_its_encoding(self, tmp_path: Path) -> None:
        names = ["Café", "Bäcker", "Æbelø"]
        text = "id,name\n" + "".join(f"{i},{name}\n" for i, name in enumerate(names))
        rows = rows_of(opened(folder(tmp_path, restaurants=text.encode("latin-1"))).restaurants)
        assert len(bad(rows)) == 3
        assert all("Latin-1" in reason and "UTF-8" in reason for reason in bad(rows).values())
