"""Training: the loop, its schedules, checkpoints and the run directory."""
