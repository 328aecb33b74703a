"""The data room: from source files to an immutable, split dataset version."""
