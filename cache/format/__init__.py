"""The store's layout on disk or in an object store: groups, manifests, shards, weights."""
