"""Answers to files too long for memory, which a killed run does not lose."""
