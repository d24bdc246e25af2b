{{ config(materialized='table') }}
-- while SECOND_BROKEN says yes this model fails at run time
select customer, count(*) as orders, sum(amount) as amount,
       case when '{{ env_var("SECOND_BROKEN", "no") }}' = 'yes' then error('not yet') end as problem
from {{ ref('orders') }}
group by customer
