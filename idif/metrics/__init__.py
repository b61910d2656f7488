"""Metrics of anomaly detection, exact, streaming where data are large. Defined in docs/metrics.md."""

from idif.metrics.curves import auroc, average_precision, f1_max
from idif.metrics.pixel import PixelMetrics, aupro

__all__ = ["PixelMetrics", "aupro", "auroc", "average_precision", "f1_max"]
