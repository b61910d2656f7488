"""IDIF (AAAI 2025): intra-view decoupling and inter-view fusion."""
