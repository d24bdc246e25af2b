"""A Singer tap for files whose rows carry an increasing key."""
