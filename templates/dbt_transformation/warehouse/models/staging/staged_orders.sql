select order_id, customer_id, cast(ordered_on as date) as ordered_on, status, amount_cents
from {{ ref('orders') }}
where cast(ordered_on as date) >= date '{{ var("since") }}'
