"""What is kept: history, current state, definitions, logs, artifacts. SQL lives in `.sql` files beside this module."""
