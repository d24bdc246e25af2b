"""The airlines with the most flights, and how late they left on average."""

from check import query  # the file beside this one

BY_CARRIER = """
select carrier, name, count(*)::bigint as flights, round(avg(dep_delay), 1)::double as mean_delay_minutes
from flights join airlines using (carrier)
group by carrier, name order by flights desc, carrier limit ?
"""


def main(extract, top=5):
    return query(extract, BY_CARRIER, top)
