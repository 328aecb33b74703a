"""The life of a model, stage after stage."""
