"""A run's figures to those who show them: TensorBoard and MLflow, each with an extra and a module of its own.

Importing this package loads neither. Nothing leaves the machine unless an address of one's own says so.
"""

from kbdfl.tracking.follow import TRACKERS, Tracking, check_trackers, open_tracking, track_rows

__all__ = ["TRACKERS", "Tracking", "check_trackers", "open_tracking", "track_rows"]
