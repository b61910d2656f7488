"""Reader, writer and published statistics of the Real-IAD layout."""
