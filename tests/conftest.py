"""What holds for every test: machines are shared, so no example has a deadline of its own.

KBDFL_EXAMPLES is how many examples a property sees, for processors that are emulated.
"""

import os

from hypothesis import settings

settings.register_profile("kbdfl", deadline=None, max_examples=int(os.environ.get("KBDFL_EXAMPLES", "100")))
settings.load_profile("kbdfl")
