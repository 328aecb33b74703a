"""Does another form of a model answer as the one that was evaluated? Measured on the same items, and named if not."""
