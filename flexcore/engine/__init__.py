"""Decides what happens next, makes it durable, and only then acts."""
