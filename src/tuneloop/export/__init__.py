"""A run in the forms that others can use, each proven to answer like the model that was evaluated."""
