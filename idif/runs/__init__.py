"""Runs: folders with config, checkpoints and results; training, evaluation and sweeps of a run."""
