"""Answering over HTTP: the service, its batches and models, and what protects it."""
