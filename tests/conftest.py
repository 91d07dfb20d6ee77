"""What holds for every test: machines are shared, so no example has a deadline of its own."""

from hypothesis import settings

settings.register_profile("kbdfl", deadline=None)
settings.load_profile("kbdfl")
