"""Places steps: which runtime runs each, and why. Pure functions of their arguments."""
