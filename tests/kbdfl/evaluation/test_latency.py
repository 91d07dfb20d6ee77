"""A step takes some time, and the slowest hundredth takes no less than the median."""

from kbdfl.evaluation import step_latency


def test_the_median_is_positive_and_no_larger_than_the_99th_percentile(bundles):
    latency = step_latency(bundles["int8"], steps=50)
    assert 0 < latency.latency_p50_us <= latency.latency_p99_us
