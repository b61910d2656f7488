"""The report: one self-contained HTML file from the result files of one or more runs."""

from idif.report.gallery import ImageLoader
from idif.report.page import write_report

__all__ = ["ImageLoader", "write_report"]
