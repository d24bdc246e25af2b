"""The `sql` step on a real Postgres, with the driver that it is told or that it gets by itself."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_steps import Local

from flexcore.model.failure import ErrorClass
from flexcore.runtime.interface import LogStream

STARTER = Path(__file__).parents[3] / "templates" / "postgres_replication" / "demo_postgres.py"
RUN = """
import runpy, sys
with runpy.run_path(sys.argv[1])["postgres"]() as address:
    print(address.format(database="postgres"), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """A server of the test's own, started the way the template does it: without a user of the machine's.

    In a process without threads, which may leave root.
    """
    (tmp_path / "output").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(STARTER)],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        lines = (line.strip() for line in running.stdout)
        yield next(line for line in lines if line.startswith("postgresql://"))
        assert running.stdin is not None
        running.stdin.close()


async def test_sql_on_postgres_takes_its_driver_from_packages(local: Local, postgres: str) -> None:
    made = {"connection": postgres, "script": "create table t as select 1.5 as price, %(n)s::int as n"}
    await local.run("sql", {**made, "params": {"n": 3}, "packages": ["psycopg[binary]>=3.2"]})

    seen = await local.run(
        "sql", {"connection": postgres, "script": "select * from t", "packages": ["psycopg[binary]>=3.2"]}
    )

    assert seen.output == {"rows": [{"price": "1.5", "n": 3}], "row_count": 1}


async def test_sql_on_postgres_gets_the_driver_by_itself(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexcore_local.preparation.importlib.util.find_spec", lambda name: None)

    seen = await local.run("sql", {"connection": "postgresql://127.0.0.1:9/none", "script": "select 1"})

    assert b"psycopg" in seen.log(LogStream.SYSTEM)
    assert (seen.failure.error_class, seen.failure.name) == (ErrorClass.DEPENDENCY, "Refused")
