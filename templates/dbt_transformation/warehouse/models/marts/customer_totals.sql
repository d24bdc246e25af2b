select
    customer_id,
    name,
    country,
    count(order_id) as orders,
    coalesce(sum(amount_cents) filter (where status = 'paid'), 0)::bigint as paid_cents
from {{ ref('staged_customers') }}
left join {{ ref('staged_orders') }} using (customer_id)
group by all
