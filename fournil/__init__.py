"""Fournil: from raw French and English documents to a chat model, on Ray."""

__version__ = "0.1.0"
