-- Only the first return of a debit counts.
with disputes as (

    select * from {{ ref('stg_stripe__disputes') }}

),

numbered as (

    select
        account_id,
        livemode,
        charge_id,
        reason as return_reason,
        created_at as returned_at,
        row_number() over (
            partition by account_id, livemode, charge_id order by created_at, dispute_id
        ) as return_number
    from disputes
    where
        -- Dispute reasons (Stripe SDK) with which a bank returns a debit. All other reasons are complaints by the
        -- payer.
        reason in (
            'bank_cannot_process', 'check_returned', 'debit_not_authorized', 'incorrect_account_details',
            'insufficient_funds'
        )
        and status is distinct from 'won'

),

final as (

    select
        account_id,
        livemode,
        charge_id,
        return_reason,
        returned_at
    from numbered
    where return_number = 1

)

select * from final
