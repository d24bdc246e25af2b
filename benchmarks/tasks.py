"""What the benchmark's steps call: nothing."""

from flexcore import task


@task
def nothing(n: int = 0) -> int:
    """Give back what was given."""
    return n
