"""Dates: every style of phones, and the order that fits a whole file."""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.device_sim.typing.imports.dates import DateOrder, numeric_time, when, whole_numeric

FIVE_PAST_FIVE = datetime(2024, 3, 14, 17, 5, tzinfo=UTC).timestamp()
WRITE = {"dmy": "{0.day}/{0.month}/{0:%y}", "mdy": "{0.month}/{0.day}/{0:%y}", "ymd": "{0:%Y-%m-%d}"}


def order_of(*dates):
    order = DateOrder()
    for date in dates:
        order.see(whole_numeric(date))
    return order.resolve()


@pytest.mark.parametrize(
    ("written", "order"),
    [
        ("14/03/2024, 17:05", "dmy"),
        ("14.03.24, 17:05:00", "dmy"),
        ("14.3.2024 klo 17.05.00", "dmy"),
        ("14.03.24 um 17:05 Uhr", "dmy"),
        ("14/03/2024 às 17:05", "dmy"),
        ("14-03-2024 17:05", "dmy"),
        ("14/3/2024, 5:05 p. m.", "dmy"),
        ("14. 3. 2024 17:05", "dmy"),
        ("3/14/24, 5:05\u202fPM", "mdy"),
        ("3/14/24, 5:05 pm", "mdy"),
        ("2024-03-14, 17:05", "ymd"),
        ("2024/03/14 17:05:00", "ymd"),
        ("2024/3/14 下午5:05", "ymd"),
        ("24/03/14 17:05", "ymd"),
    ],
)
def test_every_style_is_the_same_moment(written, order):
    assert numeric_time(whole_numeric(written), order, UTC) == FIVE_PAST_FIVE


@pytest.mark.parametrize(
    "written", ["31/02/2024, 17:05", "14/13/2024, 17:05", "14/03/2024, 25:05", "14/03/2024, 17:65", "1/1/24, 13:00 PM",
                "1/1/24, 0:10 AM"],
)  # fmt: skip
def test_a_day_or_an_hour_that_does_not_exist_is_none(written):
    assert numeric_time(whole_numeric(written), "dmy", UTC) is None


def test_noon_and_midnight_of_twelve_hours():
    noon = numeric_time(whole_numeric("1/1/24, 12:00 PM"), "dmy", UTC)
    assert noon - numeric_time(whole_numeric("1/1/24, 12:00 AM"), "dmy", UTC) == 12 * 3600


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (["1/2/24, 10:00", "13/2/24, 10:00"], ("dmy", False)),
        (["1/2/24, 10:00", "2/13/24, 10:00"], ("mdy", False)),
        (["2024/01/02 10:00", "2024/01/03 10:00"], ("ymd", False)),
        (["31/12/23 10:00", "1/1/24 10:00"], ("dmy", False)),
        (
            ["10/1/24 10:00", "11/1/24 10:00", "1/2/24 10:00"],
            ("dmy", False),
        ),  # else back from November to January
        (["1/10/24 10:00", "1/11/24 10:00", "2/1/24 10:00"], ("mdy", False)),
        (["1/2/24 10:00", "2/3/24 10:00"], ("dmy", True)),
        (["1/2/24 10:00 AM", "2/3/24 10:00 AM"], ("mdy", True)),
        (["2/2/24 10:00", "3/3/24 10:00"], ("dmy", False)),  # the same in both orders
        (
            ["1/2/24 10:00", "13/2/24 10:00", "45/45/24 10:00"],
            ("dmy", False),
        ),  # a broken date decides nothing
    ],
)
def test_the_order_is_the_one_that_fits_the_whole_file(dates, expected):
    assert order_of(*dates) == expected


@given(st.sampled_from(sorted(WRITE)), st.dates(datetime(2001, 1, 1).date(), datetime(2040, 1, 1).date()))
def test_a_chat_over_a_month_is_always_read_in_its_own_order(order, first):
    days = [first + timedelta(days) for days in range(40)]
    found, ambiguous = order_of(*(WRITE[order].format(day) + " 10:00" for day in days))
    assert (found, ambiguous) == (order, False)


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)),
    st.sampled_from(["UTC", "Asia/Tokyo", "Asia/Kolkata"]),
)
def test_what_is_written_in_a_zone_is_read_in_it(time, zone):
    time = time.replace(microsecond=0, fold=0)
    zone = ZoneInfo(zone)
    seconds = time.replace(tzinfo=zone).timestamp()
    assert when(time.isoformat(), zone) == seconds
    assert when(f"{time:%d/%m/%Y, %H:%M:%S}", zone) == seconds
    assert when(time.replace(tzinfo=zone).isoformat(), UTC) == seconds


@given(st.integers(10**9, 4 * 10**9), st.sampled_from([1, 10**3, 10**6, 10**9]), st.booleans())
def test_numbers_are_seconds_or_their_fractions(seconds, unit, as_text):
    value = seconds * unit
    assert when(str(value) if as_text else value, UTC) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value", ["noon", "", "nan", "inf", True, [], {}, "1e400", 10**400, "14/14/2024 10:00", "0001-01-01"]
)
def test_what_is_no_time_is_none(value):
    assert when(value, UTC) is None


def test_mails_own_dates_are_times():
    assert when("Thu, 14 Mar 2024 18:05:00 +0100", UTC) == FIVE_PAST_FIVE


def test_only_whole_strings_are_numeric_dates():
    assert whole_numeric("14/03/2024, 17:05 or so") is None
    assert whole_numeric(17) is None
    assert isinstance(whole_numeric(" 14/03/2024, 17:05 "), re.Match)
