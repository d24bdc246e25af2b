"""Pure data and pure functions on it: no I/O, no clock, and nothing of ours imported."""
