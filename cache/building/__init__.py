"""Building a store: shards are encoded, journaled, and published by the manifest."""
