"""Ground floor: storage, artifacts, progress, the Ray session and jobs."""
