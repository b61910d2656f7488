"""Types that cross the seams: index, batch, feature specs, decoded images."""
