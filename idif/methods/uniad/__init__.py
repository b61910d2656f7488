"""UniAD: a transformer that reconstructs frozen features; one model for all classes."""
