"""Strict parsers: what they take, what they refuse and what they say about it."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.parsing import (
    MAX_ID,
    MAX_SHOWN_CHARS,
    MAX_URL_CHARS,
    ParseError,
    parse_amount,
    parse_bool,
    parse_cuisines,
    parse_float,
    parse_http_url,
    parse_id,
    parse_instant,
    parse_order_rating,
    parse_price_range,
    parse_restaurant_rating,
    parse_text,
)

ALL_PARSERS = [
    parse_id,
    partial(parse_float, low=-90, high=90),
    parse_restaurant_rating,
    parse_order_rating,
    parse_amount,
    parse_price_range,
    parse_bool,
    parse_instant,
    partial(parse_text, max_chars=10),
    partial(parse_cuisines, max_chars=10),
    parse_http_url,
]


class TestIds:
    @pytest.mark.parametrize("value", [0, 1, 2**31, 2**53 - 1, 2**53 + 1, MAX_ID])
    def test_keeps_every_digit(self, value: int) -> None:
        assert parse_id(str(value)) == value

    def test_leading_zeros_do_not_count(self) -> None:
        assert parse_id("0042") == 42

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "is empty"),
            ("-1", "is negative"),
            (str(2**63), f"is above {MAX_ID}"),
            ("9" * 400, f"is above {MAX_ID}"),
            (" 5", "blanks"),
            ("5\n", "blanks"),
            ("+5", "not a whole number"),
            ("1_000", "not a whole number"),
            ("12.0", "not a whole number"),
            ("0x1", "not a whole number"),
            ("٣", "not a whole number"),
            ("５", "not a whole number"),
            ("²", "not a whole number"),
            ("true", "not a whole number"),
            ("-", "not a whole number"),
        ],
    )
    def test_refuses(self, text: str, reason: str) -> None:
        with pytest.raises(ParseError, match=reason):
            parse_id(text)

    @pytest.mark.parametrize("text", ["3.91E+16", "3,91E+16", "1e3", "-1E5"])
    def test_says_that_scientific_notation_lost_digits(self, text: str) -> None:
        with pytest.raises(ParseError, match="scientific notation: digits of the id are lost"):
            parse_id(text)


class TestFloats:
    @pytest.mark.parametrize(
        ("text", "value"),
        [("4.5", 4.5), ("-73.857694", -73.857694), ("0", 0.0), ("5e-05", 5e-05), ("90", 90.0)],
    )
    def test_takes_plain_decimals(self, text: str, value: float) -> None:
        assert parse_float(text, low=-90, high=90) == value

    def test_knows_no_minus_zero(self) -> None:
        assert math.copysign(1, parse_float("-0.0", low=-1, high=1)) == 1

    @pytest.mark.parametrize(
        "text",
        [
            *("", " 1", "1 ", "+1", ".5", "5.", "1_0", "nan", "NaN", "inf", "-inf", "Infinity"),
            *("0x1p3", "٣", "1e", "--1", "1.2.3", "1" * 65),
        ],
    )
    def test_refuses_what_is_no_plain_decimal(self, text: str) -> None:
        with pytest.raises(ParseError, match="not a number"):
            parse_float(text, low=-90, high=90)

    @pytest.mark.parametrize("text", ["1e400", "-1e400", "90.0001", "-91", "9" * 64])
    def test_refuses_what_is_out_of_range(self, text: str) -> None:
        with pytest.raises(ParseError, match="not between -90 and 90"):
            parse_float(text, low=-90, high=90)

    @pytest.mark.parametrize("text", ["4,5", "-4,5", "1.234,50"])
    def test_names_the_decimal_comma(self, text: str) -> None:
        with pytest.raises(ParseError, match="comma"):
            parse_float(text, low=0, high=5)

    @given(st.floats(min_value=-180, max_value=180))
    def test_reads_what_python_writes(self, value: float) -> None:
        assert parse_float(repr(value), low=-180, high=180) == value

    def test_ratings_have_their_ranges(self) -> None:
        assert parse_restaurant_rating("0") == 0.0
        assert parse_restaurant_rating("4.3") == 4.3
        assert parse_order_rating("1") == 1.0
        assert parse_order_rating("4.5") == 4.5
        for parse, text in [
            (parse_restaurant_rating, "5.1"),
            (parse_restaurant_rating, "-0.1"),
            (parse_order_rating, "0"),
            (parse_order_rating, "9"),
        ]:
            with pytest.raises(ParseError, match="not between"):
                parse(text)


class TestAmounts:
    @pytest.mark.parametrize("text", ["0", "12.50", "9999999999.9999", "0.0001", "12.500000"])
    def test_keeps_the_value_exactly(self, text: str) -> None:
        assert parse_amount(text) == Decimal(text)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("-1", "negative"),
            ("-0", "negative"),
            ("12,50", "comma"),
            ("1.234,50", "comma"),
            ("10000000000", r"below 10\^10"),
            ("0.00001", "at most 4 decimals"),
            ("1e3", "not an amount"),
            ("NaN", "not an amount"),
            ("Infinity", "not an amount"),
            ("$5", "not an amount"),
            ("", "not an amount"),
            ("1_0", "not an amount"),
            (" 1", "not an amount"),
            ("٣", "not an amount"),
        ],
    )
    def test_refuses(self, text: str, reason: str) -> None:
        with pytest.raises(ParseError, match=reason):
            parse_amount(text)

    @given(st.decimals(min_value=0, max_value=Decimal("9999999999.9999"), places=4))
    def test_loses_nothing(self, value: Decimal) -> None:
        assert parse_amount(f"{value:f}") == value


class TestChoices:
    def test_price_ranges(self) -> None:
        assert [parse_price_range(text) for text in "1234"] == [1, 2, 3, 4]
        for text in ("0", "5", "2.0", "02", " 2", "low", "$$", "", "²"):
            with pytest.raises(ParseError, match="not 1, 2, 3 or 4"):
                parse_price_range(text)

    def test_bools(self) -> None:
        assert [parse_bool(text) for text in ("true", "TRUE", "True", "1")] == [True] * 4
        assert [parse_bool(text) for text in ("false", "False", "0")] == [False] * 3
        for text in ("yes", "t", "2", "", " true", "1.0", "None"):
            with pytest.raises(ParseError, match="not true, false, 1 or 0"):
                parse_bool(text)


class TestInstants:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2026-01-31T18:30:00Z", datetime(2026, 1, 31, 18, 30, tzinfo=UTC)),
            ("2026-01-31t18:30:00z", datetime(2026, 1, 31, 18, 30, tzinfo=UTC)),
            ("2026-01-31 18:30:00+00:00", datetime(2026, 1, 31, 18, 30, tzinfo=UTC)),
            ("2026-01-31T18:30:00-00:00", datetime(2026, 1, 31, 18, 30, tzinfo=UTC)),
            ("2026-01-31T23:30:00-05:30", datetime(2026, 2, 1, 5, 0, tzinfo=UTC)),
            ("2026-01-01T00:30:00+14:00", datetime(2025, 12, 31, 10, 30, tzinfo=UTC)),
            ("2026-01-31T18:30:00.5Z", datetime(2026, 1, 31, 18, 30, 0, 500_000, tzinfo=UTC)),
            (
                "2026-01-31T23:59:59.999999999Z",
                datetime(2026, 1, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            ),
            ("2024-02-29T00:00:00Z", datetime(2024, 2, 29, tzinfo=UTC)),
            ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
            ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ],
    )
    def test_is_given_in_utc(self, text: str, expected: datetime) -> None:
        parsed = parse_instant(text)
        assert parsed == expected
        assert parsed.tzinfo is UTC

    @pytest.mark.parametrize(
        "text", ["2016-12-31T23:59:60Z", "2016-12-31T23:59:60.7Z", "2017-01-01T00:59:60+01:00"]
    )
    def test_a_leap_second_stays_on_its_day(self, text: str) -> None:
        parsed = parse_instant(text)
        assert parsed.replace(microsecond=0) == datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)

    @pytest.mark.parametrize(
        "text",
        ["2016-12-31T23:58:60Z", "2016-11-30T23:59:60Z", "2016-12-31T23:59:60+01:00"],
    )
    def test_other_minutes_have_no_leap_second(self, text: str) -> None:
        with pytest.raises(ParseError, match="not a leap second"):
            parse_instant(text)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("2026-01-31T18:30:00", "no time with an offset"),
            ("2026-01-31 18:30:00.5", "no time with an offset"),
            ("2026-01-31", "no time with an offset"),
            ("03/08/2026", "which is day and which is month"),
            ("15/04/2026", "which is day and which is month"),
            ("03.08.26 12:00", "which is day and which is month"),
            ("1704164645", "not a time"),
            ("", "not a time"),
            ("2026-W05-6T18:30:00Z", "not a time"),
            ("20260131T183000Z", "not a time"),
            ("2026-01-31T183000.Z", "not a time"),
            ("2026-01-31T18:30Z", "not a time"),
            ("2026-01-31T24:00:00Z", "not a time"),
            ("2026-01-31T18:60:00Z", "not a time"),
            ("2026-01-31T18:30:61Z", "not a time"),
            ("2026-13-01T00:00:00Z", "not a time"),
            ("2026-01-31T18:30:00+24:00", "not a time"),
            ("2026-01-31T18:30:00+0100", "not a time"),
            ("2026-01-31T18:30:00+01", "not a time"),
            ("2026-01-31T18:30:00,5Z", "not a time"),
            ("2026-01-31T18:30:00.Z", "not a time"),
            (" 2026-01-31T18:30:00Z", "not a time"),
            ("2026-01-31T18:30:00Z\n", "not a time"),
            ("２026-01-31T18:30:00Z", "not a time"),
            ("2026-01-31T18:30:00." + "0" * 100 + "Z", "not a time"),
            ("2026-02-30T00:00:00Z", "not a day of the calendar"),
            ("2025-02-29T00:00:00+01:00", "not a day of the calendar"),
            ("0000-01-01T00:00:00Z", "not a day of the calendar"),
            ("9999-12-31T23:59:59-12:00", "between the years 1970 and 9999"),
            ("0001-01-01T00:00:00+14:00", "between the years 1970 and 9999"),
            ("0001-01-01T00:00:00Z", "before 1970"),
            ("1970-01-01T00:30:00+01:00", "before 1970"),
        ],
    )
    def test_refuses(self, text: str, reason: str) -> None:
        with pytest.raises(ParseError, match=reason):
            parse_instant(text)

    @given(
        st.datetimes(  # hypothesis wants naive bounds
            min_value=datetime(1970, 1, 3),  # noqa: DTZ001
            max_value=datetime(9999, 12, 29),  # noqa: DTZ001
        ),
        st.integers(min_value=-1439, max_value=1439),
    )
    def test_reads_every_offset(self, utc: datetime, offset_minutes: int) -> None:
        local = utc + timedelta(minutes=offset_minutes)
        sign = "-" if offset_minutes < 0 else "+"
        hours, minutes = divmod(abs(offset_minutes), 60)
        text = f"{local.isoformat(timespec='microseconds')}{sign}{hours:02}:{minutes:02}"
        assert parse_instant(text) == utc.replace(tzinfo=UTC)


class TestTexts:
    def test_trims_the_ends_and_keeps_the_rest(self) -> None:
        assert parse_text(" \ta\r\nb\tc \u00a0\n", max_chars=20) == "a\r\nb\tc"

    @pytest.mark.parametrize("text", ["Café", "寿司", "🍜", "<script>", "a\u202eb", "e\u0301", ""])
    def test_keeps_any_script(self, text: str) -> None:
        assert parse_text(text, max_chars=20) == text

    @pytest.mark.parametrize("code", [0x00, 0x01, 0x08, 0x0B, 0x0C, 0x1B, 0x1F, 0xD800, 0xDFFF])
    def test_refuses_what_databases_and_terminals_choke_on(self, code: int) -> None:
        with pytest.raises(ParseError, match=f"U\\+{code:04X}"):
            parse_text(f"a{chr(code)}b", max_chars=20)

    def test_limits_the_length_after_trimming(self) -> None:
        assert parse_text("  12345  ", max_chars=5) == "12345"
        with pytest.raises(ParseError, match="6 characters long; at most 5"):
            parse_text("123456", max_chars=5)

    def test_cuisines_are_trimmed_one_by_one(self) -> None:
        assert parse_cuisines(" Tex Mex | Mexican||", max_chars=30) == "Tex Mex|Mexican"
        assert parse_cuisines(" | ", max_chars=30) == ""

    @pytest.mark.parametrize(
        "url",
        ["https://example.com/a.jpg?x=1#y", "HTTP://example.com", "http://[::1]:8000/ü.png"],
    )
    def test_takes_web_addresses(self, url: str) -> None:
        assert parse_http_url(f" {url} ") == url

    @pytest.mark.parametrize(
        "url",
        [
            *("javascript:alert(1)", "JaVaScRiPt://x/%0aalert(1)", "data:image/png;base64,AA"),
            *("//x/a", "/a.jpg", "ftp://x/a", "file:///a", "x", ""),
            *("http://", "http:///a", "https:/x", "https://a b/c", "https://x/a\nb"),
            *("https://user:word@x/a", "https:\\\\x", "https://x\\@y/"),
        ],
    )
    def test_refuses_other_addresses(self, url: str) -> None:
        with pytest.raises(ParseError, match="not an http or https address"):
            parse_http_url(url)

    def test_limits_addresses(self) -> None:
        with pytest.raises(ParseError, match="at most"):
            parse_http_url("https://x/" + "a" * MAX_URL_CHARS)


@given(st.one_of(st.text(), st.text(alphabet="0123456789eE+-.,:TZ _/\n\x00\x1b\ud800٣")))
def test_every_text_is_parsed_or_refused_in_one_safe_line(text: str) -> None:
    for parse in ALL_PARSERS:
        reason = refusal(parse, text)
        assert reason.isprintable()
        assert len(reason) < 200 + 10 * MAX_SHOWN_CHARS


def refusal(parse: Callable[[str], object], text: str) -> str:
    """Why the parser refuses the text; empty if it takes it."""
    try:
        parse(text)
    except ParseError as error:
        return error.reason
    return ""
