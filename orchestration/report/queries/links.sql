-- The recovery rate without the weaker links between payments.
select
    account_id,
    subject,
    counted,
    out_of,
    ratio
from marts.link_audit
where topic = 'rates_by_tier'
order by account_id, ratio
