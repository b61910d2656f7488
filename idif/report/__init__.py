"""The report: one self-contained HTML file from the result files of one or more runs."""

from idif.report.build import write_report
from idif.report.gallery import ImageLoader

__all__ = ["ImageLoader", "write_report"]
