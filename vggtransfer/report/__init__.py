"""Self-contained HTML pages about a run: a page shell, charts, and pictures with maps laid over them."""
