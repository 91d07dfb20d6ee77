"""What runs show: report.html of a finished one, compare.html of several."""

from kbdfl.report.compare import read_runs, write_comparison
from kbdfl.report.run import finish_run, summarise, write_report

__all__ = ["finish_run", "read_runs", "summarise", "write_comparison", "write_report"]
