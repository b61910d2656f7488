"""The config: typed sections and their loader."""
