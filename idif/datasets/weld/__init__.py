"""Weld runs: a video, a sound, a series of sensor values and five stills of each."""
