"""What came out of a run? One HTML page that needs nothing else, from the JSON that the commands keep."""

from adjcompress.report.page import write_report

__all__ = ["write_report"]
