"""The evaluation suite as a Ray job, and the report."""
