"""MSFlow (TNNLS 2024): parallel normalizing flows over multi-scale features, joined by a fusion flow."""
