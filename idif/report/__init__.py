"""The report: one self-contained HTML file about one or more evaluated runs."""

from idif.report.gallery import ImageLoader
from idif.report.page import write_report

__all__ = ["ImageLoader", "write_report"]
