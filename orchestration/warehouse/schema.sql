-- The raw tables, except those of Stripe's objects (object_table.sql), and Recoup's bookkeeping.
-- Every TIMESTAMP is UTC. Amounts in a payload are in minor units, as Stripe sends them.
-- Keys begin with (account_id, livemode). The load keeps them unique, and dbt's `unique` tests check it. There is no
-- PRIMARY KEY, since an index would double the file and make the load about four times as slow.
-- Payloads are compressed with zstd: a quarter of the size that DuckDB's default gives, in less time.

CREATE SCHEMA IF NOT EXISTS raw_stripe;
CREATE SCHEMA IF NOT EXISTS sync;

-- Numbers of loads and builds, ascending. Incremental models use them (_load_id) to find new rows.
CREATE SEQUENCE IF NOT EXISTS sync.load_ids;

-- Append-only: one row per event, whether it was polled or received by webhook.
CREATE TABLE IF NOT EXISTS raw_stripe.events (
    account_id   VARCHAR   NOT NULL,
    livemode     BOOLEAN   NOT NULL,
    id           VARCHAR   NOT NULL,
    created      TIMESTAMP NOT NULL,
    type         VARCHAR   NOT NULL,
    object_id    VARCHAR   NOT NULL,  -- data.object.id
    payload      JSON      NOT NULL USING COMPRESSION zstd,  -- the whole event, redacted
    _source      VARCHAR   NOT NULL,  -- event (polled) | webhook
    _api_version VARCHAR,
    _loaded_at   TIMESTAMP NOT NULL,
    _load_id     BIGINT    NOT NULL
);

-- Append-only: each last_payment_error without a charge that a list has shown. Stripe deletes events after thirty days.
-- Then only last_payment_error shows a failure without a charge, and the next update of the payment intent clears it.
CREATE TABLE IF NOT EXISTS raw_stripe.last_payment_errors (
    account_id        VARCHAR   NOT NULL,
    livemode          BOOLEAN   NOT NULL,
    id                VARCHAR   NOT NULL,  -- <payment intent id>:lpe:<hash of code, decline_code, type and payment method>
    payment_intent_id VARCHAR   NOT NULL,
    first_seen_at     TIMESTAMP NOT NULL,  -- when the first payload that shows it was read, on Stripe's clock
    payload           JSON      NOT NULL,  -- the last_payment_error itself, redacted
    _loaded_at        TIMESTAMP NOT NULL,
    _load_id          BIGINT    NOT NULL
);

-- Append-only: one row per event received by webhook. The event itself is in raw_stripe.events.
CREATE TABLE IF NOT EXISTS raw_stripe.webhook_events (
    account_id   VARCHAR   NOT NULL,
    livemode     BOOLEAN   NOT NULL,
    event_id     VARCHAR   NOT NULL,
    event_type   VARCHAR   NOT NULL,
    integration  VARCHAR   NOT NULL,
    received_at  TIMESTAMP NOT NULL,  -- when the receiver accepted it, on this machine's clock
    _loaded_at   TIMESTAMP NOT NULL,
    _load_id     BIGINT    NOT NULL
);

-- Checkpoints: how far each stream has been read. Each is written in the same transaction as the rows that it covers.
CREATE TABLE IF NOT EXISTS sync.streams (
    account_id         VARCHAR NOT NULL,
    livemode           BOOLEAN NOT NULL,
    stream             VARCHAR NOT NULL,  -- payment_intents | charges | refunds | disputes | payment_intent_events | charge_events
    missing_permission VARCHAR,           -- the permission that the API key lacks (rak_…_read); NULL: the stream can be read
    complete_through   TIMESTAMP,         -- everything created until then, on Stripe's clock, is loaded; NULL until the first pass is complete
    known_since        TIMESTAMP,         -- event streams: no event is missing since then; other streams: when the last full backfill began
    walk_floor         TIMESTAMP,         -- the current pass reads what was created in [walk_floor, walk_ceiling]
    walk_ceiling       TIMESTAMP,         -- NULL: there is no current pass
    open_windows       STRUCT("floor" TIMESTAMP, ceiling TIMESTAMP, "cursor" VARCHAR, cursor_at TIMESTAMP)[],
                                          -- parts of the current pass that are not loaded yet: [floor, ceiling), from cursor downward
    updated_at         TIMESTAMP NOT NULL, -- the last change of this row, on Stripe's clock
    _updated_at        TIMESTAMP NOT NULL  -- the last change of this row, on this machine's clock
);

-- The account that each integration's API key belongs to. Webhook events of the integration are loaded into it.
CREATE TABLE IF NOT EXISTS sync.integrations (
    integration VARCHAR NOT NULL,
    account_id  VARCHAR NOT NULL,
    key_digest  VARCHAR NOT NULL  -- the start of the key's SHA-256; with another key, the account is looked up again
);

-- Requests to Stripe by UTC day, on Stripe's clock. A retry counts as a request, as in Stripe's read allocation.
CREATE TABLE IF NOT EXISTS sync.reads (
    account_id VARCHAR NOT NULL,
    livemode   BOOLEAN NOT NULL,
    day        DATE    NOT NULL,
    endpoint   VARCHAR NOT NULL,  -- the path, with :id in place of an object's id
    requests   BIGINT  NOT NULL
);

-- Quarantine: objects from Stripe's API that could not be read. Each sync retries some of them. Once an object can be read,
-- it is loaded and deleted from this table.
CREATE TABLE IF NOT EXISTS sync.quarantine (
    account_id    VARCHAR   NOT NULL,
    livemode      BOOLEAN   NOT NULL,
    stream        VARCHAR   NOT NULL,  -- as in sync.streams
    key           VARCHAR   NOT NULL,  -- the object's id, or else its position in the list
    object_id     VARCHAR,             -- NULL: the id cannot be read
    reason        VARCHAR   NOT NULL,
    "floor"       TIMESTAMP NOT NULL,  -- the object was created in [floor, ceiling), on Stripe's clock, as far as its list shows
    ceiling       TIMESTAMP NOT NULL,
    first_seen_at TIMESTAMP NOT NULL,  -- the first attempt to read it, on this machine's clock
    last_seen_at  TIMESTAMP NOT NULL   -- the last attempt to read it, on this machine's clock
);

-- The ledger of loads: which raw tables each load wrote to, and the first complete build that includes it.
CREATE TABLE IF NOT EXISTS sync.loads (
    load_id    BIGINT    NOT NULL,
    table_name VARCHAR   NOT NULL,
    loaded_at  TIMESTAMP NOT NULL,  -- on this machine's clock
    build_id   BIGINT               -- NULL: no complete build includes the load yet
);

-- The last complete build, and later builds that failed or built only some models.
DROP TABLE IF EXISTS sync.builds;  -- of an earlier release
CREATE TABLE IF NOT EXISTS sync.model_builds (
    build_id    BIGINT    NOT NULL,  -- from sync.load_ids
    is_good     BOOLEAN   NOT NULL,  -- all models were built and all blocking tests passed
    began_at    TIMESTAMP NOT NULL,  -- on this machine's clock
    fingerprint VARCHAR,             -- hash of the dbt project's files; NULL: dbt was run by hand
    streams     VARCHAR              -- hash of the checkpoints that the models read; NULL: not known
);

-- For each model's table: which build last changed it, and which build last replaced all its rows. Publishing uses this.
CREATE TABLE IF NOT EXISTS sync.model_tables (
    table_schema VARCHAR NOT NULL,
    table_name   VARCHAR NOT NULL,
    changed_by   BIGINT  NOT NULL,  -- a build_id
    replaced_by  BIGINT  NOT NULL,  -- a build_id; rows changed since then have a greater _load_id
    unique_key   VARCHAR[]          -- a build replaces all rows with the same values of these columns; NULL: the whole table
);

-- The analysts' file as it was last published. If the file on disk is a different one, it is built from scratch.
CREATE TABLE IF NOT EXISTS sync.published_file (
    identity   VARCHAR NOT NULL,  -- inode, size and time of the last change
    first_size BIGINT  NOT NULL   -- bytes, when it was last built from scratch
);
CREATE TABLE IF NOT EXISTS sync.published_tables (
    title      VARCHAR NOT NULL,  -- schema and name in the file
    condition  VARCHAR NOT NULL,  -- SQL condition for the rows of the warehouse's table that it contains
    changed_by BIGINT  NOT NULL   -- sync.model_tables.changed_by when it was published
);

-- The build that began last. Rows with a _load_id of at least first_load_id are new to the models.
CREATE VIEW IF NOT EXISTS sync.next_build AS
SELECT
    max(build_id) AS build_id,
    least(
        (SELECT min(load_id) FROM sync.loads WHERE build_id IS NULL),
        min(build_id) FILTER (NOT is_good)
    ) AS first_load_id
FROM sync.model_builds;
