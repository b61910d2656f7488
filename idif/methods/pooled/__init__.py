"""Baselines on pooled arrays: nearest neighbors and an autoencoder of one vector for each array."""
