-- Payments that wait for a bank, a voucher or a customer, and abandoned authentications. They are not failures.
select
    currency,
    account_id,
    waiting_for,
    not coalesce(is_expired, false) as is_open,
    count(*) as payment_count,
    sum(amount) as amount
from marts.waiting_payments
group by all
union all
select
    currency,
    account_id,
    'abandoned authentication' as waiting_for,
    coalesce(recovery_status, '') not in ('recovered', 'recovered_late') as is_open,
    count(*) as payment_count,
    sum(amount) as amount
from marts.abandoned_authentications
group by all
order by all
