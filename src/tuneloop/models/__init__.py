"""Base models: where they come from, how they are talked to, and how many examples share one prompt."""
