select ordered_on, count(*) as orders, sum(amount_cents)::bigint as cents
from {{ ref('staged_orders') }}
where status = 'paid'
group by ordered_on
