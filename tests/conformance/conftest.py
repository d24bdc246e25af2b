"""What the tests share that examine many checks at a time."""

from collections.abc import Mapping

import pytest

from flexcore.testing.runtime_suite import Finding


@pytest.fixture
def finding(found: Mapping[str, Finding], request: pytest.FixtureRequest) -> Finding:
    """Give what the check that a test was asked for has found. The module says in `found` how it examines."""
    return found[request.node.name]
