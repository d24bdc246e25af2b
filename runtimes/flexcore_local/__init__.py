"""Runs work on this machine: processes under a shim, and Python functions in a warm host."""
