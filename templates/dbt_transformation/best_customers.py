"""The customers who paid most, read from the mart."""

import duckdb

BEST = "select name, country, orders, paid_cents from customer_totals order by paid_cents desc, name limit ?"


def main(database, top):
    with duckdb.connect(database, read_only=True) as connection:
        cursor = connection.execute(BEST, [top])
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
