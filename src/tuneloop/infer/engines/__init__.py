"""Engines: what computes a model's answers, in this process or in another, behind one protocol."""
