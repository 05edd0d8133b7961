"""Exact and near-duplicate removal with verified pairs."""
