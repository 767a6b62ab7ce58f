-- The newest known state of each object of one kind. `{table}` is named as in Stripe's API paths.
CREATE TABLE IF NOT EXISTS raw_stripe.{table} (
    account_id   VARCHAR   NOT NULL,
    livemode     BOOLEAN   NOT NULL,
    id           VARCHAR   NOT NULL,
    created      TIMESTAMP NOT NULL,
    payload      JSON      NOT NULL USING COMPRESSION zstd,  -- Stripe's object without secrets and personal data, keys sorted
    _as_of       TIMESTAMP NOT NULL,  -- when this was the object's current state, on Stripe's clock
    _source      VARCHAR   NOT NULL,  -- list | retrieve | event | webhook
    _event_id    VARCHAR,             -- the event that contained it; NULL for list and retrieve
    _api_version VARCHAR,             -- the API version of the payload
    _precedence  VARCHAR   NOT NULL,  -- if two payloads have the same _as_of, the greater value is kept; see warehouse/load.py
    _needs_read  BOOLEAN   NOT NULL,  -- the payload may be wrong or outdated; the next sync retrieves the object
    _loaded_at   TIMESTAMP NOT NULL,  -- when the payload last changed, on this machine's clock
    _load_id     BIGINT    NOT NULL   -- the load that last changed the payload
);
