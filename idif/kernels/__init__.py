"""Code that exists only for speed on a CPU."""
