"""Encoders of weld runs: video, sound, stills, text and sensor values; need the extra `weld`."""
