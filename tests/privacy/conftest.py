"""Sources that say the same again, which only tests have."""

import pytest

from kbdfl.privacy import Source


@pytest.fixture
def source():
    return Source.of_key(bytes(range(32)))


@pytest.fixture
def sources():
    """Makes sources, each with a key of its own; the same ones in every test."""
    made = []

    def make():
        made.append(Source.of_key(len(made).to_bytes(32, "little")))
        return made[-1]

    return make
