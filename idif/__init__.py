"""Multi-view anomaly detection: data, frozen encoders, methods, training, evaluation, reports."""

__version__ = "0.1.0"
