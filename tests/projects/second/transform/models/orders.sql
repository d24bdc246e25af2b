{{ config(materialized='table') }}
select order_id, customer, amount
from read_json_auto('{{ env_var("MELTANO_PROJECT_ROOT") }}/data/orders.jsonl')
