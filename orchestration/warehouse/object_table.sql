-- The newest known state of each object of one kind. `{table}` is the kind, as in Stripe's paths.
CREATE TABLE IF NOT EXISTS raw_stripe.{table} (
    account_id   VARCHAR   NOT NULL,
    livemode     BOOLEAN   NOT NULL,
    id           VARCHAR   NOT NULL,
    created      TIMESTAMP NOT NULL,
    payload      JSON      NOT NULL USING COMPRESSION zstd,  -- Stripe's object, without client_secret and personal fields, keys sorted
    _as_of       TIMESTAMP NOT NULL,  -- the instant, on Stripe's clock, at which Stripe vouched for this payload
    _source      VARCHAR   NOT NULL,  -- list | retrieve | event | webhook
    _event_id    VARCHAR,             -- the event that carried it, where one did
    _api_version VARCHAR,             -- the API version that rendered it
    _precedence  VARCHAR   NOT NULL,  -- at equal _as_of the greater wins; see warehouse/load.py
    _needs_read  BOOLEAN   NOT NULL,  -- the payload is in doubt: the next sync retrieves the object
    _loaded_at   TIMESTAMP NOT NULL,  -- when the payload last changed here, on this machine's clock
    _load_id     BIGINT    NOT NULL   -- the load that last changed the payload
);
