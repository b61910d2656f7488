"""Memories: PatchCore and PaDiM, which are fitted to stored features and not trained."""
