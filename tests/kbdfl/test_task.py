import pytest

from kbdfl.errors import ConfigError
from kbdfl.task import RoundRule


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("cohort", 0, "cohort must be >= 1, got 0"),
        ("over_selection", 0.9, r"over_selection must lie in \[1, 10\], got 0.9"),
        ("over_selection", float("nan"), "over_selection must lie in"),
        ("min_reports", 11, r"min_reports must lie in \[0, cohort = 10\], got 11"),
        ("deadline_s", 0.0, "deadline_s must be > 0 and finite, got 0.0"),
        ("deadline_s", float("nan"), "deadline_s must be > 0"),
        ("rounds", 0, "rounds must be >= 1, got 0"),
        ("pace_s", float("inf"), "pace_s must be > 0 and finite, got inf"),
        ("max_report_bytes", -1, "max_report_bytes must be >= 0, got -1"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(field, value, message):
    with pytest.raises(ConfigError, match=message):
        RoundRule(**{field: value})


@pytest.mark.parametrize(
    ("cohort", "over", "selected"),
    [(10, 1.3, 13), (10, 1.1, 11), (10, 1.0, 10), (3, 1.3, 4), (100, 1.1, 110)],
)
def test_a_round_selects_the_cohort_times_the_over_selection_rounded_up(cohort, over, selected):
    assert RoundRule(cohort=cohort, over_selection=over).selected == selected


@pytest.mark.parametrize(("min_reports", "enough"), [(0, 10), (10, 10), (4, 4)])
def test_without_min_reports_the_whole_cohort_is_needed(min_reports, enough):
    assert RoundRule(cohort=10, min_reports=min_reports).enough == enough
