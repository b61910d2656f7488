"""A run's folder and its provenance."""
