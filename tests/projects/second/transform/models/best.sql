{{ config(materialized='view') }}
select customer from {{ ref('by_customer') }} order by amount desc limit 1
