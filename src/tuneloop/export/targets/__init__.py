"""The files that bring an exported form to where it runs: each target's files from templates, values escaped."""
