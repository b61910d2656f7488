"""Supervised contrastive learning on stored features: an upper line that sees labeled defects."""
