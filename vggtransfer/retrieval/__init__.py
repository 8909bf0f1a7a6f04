"""Pictures to their nearest neighbours: embeddings, and an index of them that stays right."""
