"""Synthetic weld runs: a simple process from which video, sound, sensor values and stills are rendered."""
