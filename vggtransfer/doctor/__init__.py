"""What is installed on this machine, whether it fits together, and what to type where it does not."""
