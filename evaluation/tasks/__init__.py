"""What is measured: one file a task, each with `prepare` (held-out text to items) and `evaluate` (items to results)."""
