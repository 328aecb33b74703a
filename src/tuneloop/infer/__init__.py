"""Answers from a model: scored over a closed label set, or generated freely."""
