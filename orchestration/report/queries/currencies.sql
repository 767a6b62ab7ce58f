-- How many decimals Stripe's amounts of a currency have.
select
    code,
    exponent
from seeds.currencies
where code in (select currency from marts.recovery_episodes)
order by code
