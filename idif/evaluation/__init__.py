"""From a trained method to scores, thresholds, predictions and metrics."""
