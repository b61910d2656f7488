"""Publishing a store to an object store."""
