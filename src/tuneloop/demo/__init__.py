"""The demo: open-source licence compliance, from a PyPI wheel to a proven model."""
