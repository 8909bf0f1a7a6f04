"""A page on this machine to look through a collection by likeness."""
