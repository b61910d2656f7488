"""Names of anomaly maps, for modules that import no torch."""

MAP = "map"
"""Name of the anomaly map in `idif.methods.protocol.Scores.maps`."""
