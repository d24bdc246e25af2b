"""Background duties: each does one round of work in `run_once` and says what it did."""
