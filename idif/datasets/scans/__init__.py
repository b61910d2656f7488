"""Import of 3D scans as rendered views."""
