"""The HTTP entrance: a table of routes whose endpoints translate, and nothing else."""
