"""The report: one self-contained HTML file about one or more evaluated runs."""

from idif.report.gallery import ImageLoader
from idif.report.page import write_report
from idif.report.recordings import RecordingLoader

__all__ = ["ImageLoader", "RecordingLoader", "write_report"]
