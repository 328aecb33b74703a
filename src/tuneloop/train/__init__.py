"""From a dataset version and a base model to an adapter."""
