"""fleet.json: what is read and refused, and the figures of fairness on cases done by hand."""

import json
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.errors import DataError
from kbdfl.report.fleet import REASONS, gini, loudest_tenth, read_fleet
from kbdfl.report.fleet_plots import MOST_BARS, bars, fleet_plots

TIER = {"phones": 3, "assigned": 30, "reported": 10, "dropped": dict.fromkeys(REASONS, 2)}
FLEET = {
    "format": 1,
    "population": 9,
    "hours": [[float(hour) for hour in range(24)]] * 3 + [[None] * 24] * 4,
    "tiers": {"flagship": TIER, "mid": TIER},
    "participation": [4, 3, 2],
}


@pytest.fixture
def read(tmp_path):
    """Read a document, or text, as fleet.json."""

    def as_fleet(document):
        path = tmp_path / "fleet.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return read_fleet(path)

    return as_fleet


def test_a_fleet_is_read_as_it_was_written(read):
    fleet = read(FLEET)
    assert (fleet.population, fleet.participation) == (9, [4, 3, 2])
    assert fleet.hours == FLEET["hours"]
    assert fleet.tiers["mid"].dropped == dict.fromkeys(REASONS, 2)
    assert (fleet.tiers["mid"].phones, fleet.tiers["mid"].assigned, fleet.tiers["mid"].reported) == (
        3,
        30,
        10,
    )


def test_what_is_not_drawn_may_stand_there_too(read):
    assert read(FLEET | {"seed": 1, "tiers": {"mid": TIER | {"energy_wh": 1.5}}}).population == 9


def without(name):
    return {key: value for key, value in FLEET.items() if key != name}


def tier(**changes):
    return FLEET | {"tiers": {"mid": TIER | changes}}


def hour(value):
    hours = [list(day) for day in FLEET["hours"]]
    hours[2][5] = value
    return FLEET | {"hours": hours}


BAD = {
    "no JSON": ("{", "is not JSON"),
    "very deep": ("[" * 100_000, "is not JSON"),
    "a list": ([], "must be an object with format"),
    "no tiers": (without("tiers"), "must be an object with format"),
    "another format": (FLEET | {"format": 2}, "format must be 1, got 2"),
    "a fraction of phones": (FLEET | {"population": 9.5}, "population must be a whole number >= 0, got 9.5"),
    "true phones": (FLEET | {"population": True}, "population must be a whole number"),
    "nobody": (FLEET | {"population": 0, "participation": [0]}, "population, >= 1, got 0 of 0"),
    "phones left over": (FLEET | {"population": 10}, "must add up to the population, >= 1, got 9 of 10"),
    "endless phones": (FLEET | {"population": 10**30}, "population must be a whole number"),
    "no participation": (FLEET | {"participation": []}, "participation must be a list of one and more"),
    "fewer than no phones": (FLEET | {"participation": [10, -1]}, "participation[1] must be a whole number"),
    "six days": (FLEET | {"hours": FLEET["hours"][1:]}, "hours must be a list of 7"),
    "a long day": (FLEET | {"hours": [[0] * 25] * 7}, "hours[0] must be a list of 24"),
    "hours of words": (hour("many"), "hours[2][5] must be a number >= 0 or null, got 'many'"),
    "hours of nan": (hour(float("nan")), "hours[2][5] must be a number"),
    "endless hours": (hour(float("inf")), "hours[2][5] must be a number"),
    "huge hours": (hour(10**400), "hours[2][5] must be a number"),
    "a list of tiers": (FLEET | {"tiers": [TIER]}, "tiers must be at most 20 objects by name"),
    "many tiers": (FLEET | {"tiers": dict.fromkeys(map(str, range(21)), TIER)}, "tiers must be at most 20"),
    "a nameless tier": (FLEET | {"tiers": {"": TIER}}, "tiers must be at most 20 objects by name"),
    "a tier of nothing": (FLEET | {"tiers": {"mid": {}}}, "tiers.mid must be an object with phones"),
    "a lost reason": (tier(dropped={"late": 1}), "tiers.mid.dropped must be an object with download"),
    "a new reason": (tier(dropped=TIER["dropped"] | {"bored": 1}), "has an unknown reason 'bored'"),
    "a reason of null": (
        tier(dropped=TIER["dropped"] | {"late": None}),
        "dropped.late must be a whole number",
    ),
    "more than were assigned": (tier(assigned=21), "at most 21 reported and dropped, as assigned, got 22"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_fleet_is_one_line(read, name):
    document, reason = BAD[name]
    with pytest.raises(DataError) as error:
        read(document)
    assert reason in str(error.value)
    assert "fleet.json" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_fleet_that_is_a_folder_is_one_line(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_fleet(tmp_path)


def test_gini_is_zero_when_all_are_heard_alike():
    assert gini([0, 0, 0, 12]) == 0
    assert gini([0, 1]) == 0


@pytest.mark.parametrize("phones", [2, 5, 1_000_000])
def test_gini_of_one_phone_alone_is_all_but_its_own_share(phones):
    assert gini([phones - 1, 0, 0, 1]) == pytest.approx((phones - 1) / phones)


def test_nobody_heard_has_no_figures():
    assert gini([7]) is loudest_tenth([7]) is gini([7, 0]) is None


@given(st.lists(st.integers(0, 4), min_size=2, max_size=9).filter(lambda counts: sum(counts[1:]) > 0))
def test_gini_is_half_the_mean_difference_by_the_mean(participation):
    times = [time for time, phones in enumerate(participation) for _ in range(phones)]
    difference = sum(abs(one - other) for one, other in product(times, times))
    assert gini(participation) == pytest.approx(difference / (2 * len(times) * sum(times)))


def test_a_tenth_of_phones_heard_alike_sends_a_tenth():
    assert loudest_tenth([0, 15]) == pytest.approx(0.1)
    assert loudest_tenth([0, 0, 20]) == pytest.approx(0.1)


def test_the_loudest_tenth_is_counted_from_the_top():
    assert loudest_tenth([19, 0, 0, 1]) == 1
    assert loudest_tenth([0, 18, 0, 1, 1]) == pytest.approx((3 + 4) / 25)
    assert loudest_tenth([0, 14, 1]) == pytest.approx((2 + 0.5) / 16)  # one phone and half of another


def test_a_histogram_has_a_bar_for_each_count_if_they_are_few():
    assert bars([5, 0, 2]) == [("0", 5), ("1", 0), ("2", 2)]
    assert bars([5]) == [("0", 5)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=400))
def test_a_histogram_of_few_bars_loses_no_phone(participation):
    found = bars(participation)
    assert len(found) <= MOST_BARS
    assert found[0] == ("0", participation[0])
    assert sum(phones for _, phones in found) == sum(participation)


def drawn(fleet):
    return "".join(plot.figure.to_json() for plot in fleet_plots(fleet))


def test_a_million_phones_are_drawn_in_the_size_of_a_thousand(read):
    small = FLEET | {"population": 1_000, "participation": [100] * 10}
    large = FLEET | {"population": 1_000_000, "participation": [500_000, *[50] * 10_000]}
    assert len(drawn(read(large))) < len(drawn(read(small))) + 3_000


def test_a_bar_of_nearly_all_phones_leaves_the_others_visible(read):
    fairness = fleet_plots(read(FLEET | {"population": 1_000, "participation": [990, 9, 1]}))[2]
    assert fairness.figure.layout.yaxis.type == "log"
    assert fleet_plots(read(FLEET))[2].figure.layout.yaxis.type is None


def test_a_fleet_that_nobody_was_asked_of_is_drawn_too(read):
    idle = TIER | {"assigned": 0, "reported": 0, "dropped": dict.fromkeys(REASONS, 0)}
    nothing = {"population": 9, "participation": [9], "hours": [[None] * 24] * 7}
    for tiers in ({}, {"mid": idle}):
        plots = fleet_plots(read(FLEET | nothing | {"tiers": tiers}))
        assert [plot.note.split(".")[0] for plot in plots][2] == "No phone was counted"


def test_a_tiers_name_is_no_markup(read):
    dropouts = fleet_plots(read(FLEET | {"tiers": {"<b>mid</b>": TIER}}))[1]
    assert dropouts.figure.data[0].x[0].startswith("&lt;b&gt;mid")


@pytest.mark.parametrize("lost", [0, 2])
def test_an_axis_of_shares_begins_at_nothing(read, lost):
    dropouts = fleet_plots(read(tier(dropped=dict.fromkeys(REASONS, lost))))[1]
    shown = dropouts.figure.layout.yaxis.range
    assert shown == (None if lost else (0, 0.1))
