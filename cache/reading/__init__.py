"""Reading a store: open groups, decoded rows, placement in memory or on a device."""
