"""tuneloop: a team's own documents in, a proven small language model out."""

__version__ = "0.1.0"
