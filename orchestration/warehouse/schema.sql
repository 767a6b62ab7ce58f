-- The raw tables, except those of objects (object_table.sql), and Recoup's bookkeeping. Money inside a payload is Stripe's
-- (integer minor units); every TIMESTAMP is UTC.
-- Keys begin with (account_id, livemode) and are kept unique by the load, not by a PRIMARY KEY: an index
-- would double the file and slow the load about fourfold. dbt's `unique` tests watch over it. Payloads are compressed by
-- zstd: a quarter of the size that DuckDB's own choice gives, in less time.

CREATE SCHEMA IF NOT EXISTS raw_stripe;
CREATE SCHEMA IF NOT EXISTS sync;

-- Numbers of loads and builds, rising. An incremental model finds new rows by them (_load_id).
CREATE SEQUENCE IF NOT EXISTS sync.load_ids;

-- Append-only, one row for each event id, whichever way it came.
CREATE TABLE IF NOT EXISTS raw_stripe.events (
    account_id   VARCHAR   NOT NULL,
    livemode     BOOLEAN   NOT NULL,
    id           VARCHAR   NOT NULL,
    created      TIMESTAMP NOT NULL,
    type         VARCHAR   NOT NULL,
    object_id    VARCHAR   NOT NULL,  -- data.object.id
    payload      JSON      NOT NULL USING COMPRESSION zstd,  -- the whole event, pruned like the objects
    _source      VARCHAR   NOT NULL,  -- event (polled) | webhook
    _api_version VARCHAR,
    _loaded_at   TIMESTAMP NOT NULL,
    _load_id     BIGINT    NOT NULL
);

-- Append-only. Once its event is older than thirty days, only `last_payment_error` shows a failure that made no charge, and
-- Stripe clears that field at the next update. So each error that a listing shows is kept here.
CREATE TABLE IF NOT EXISTS raw_stripe.last_payment_errors (
    account_id        VARCHAR   NOT NULL,
    livemode          BOOLEAN   NOT NULL,
    id                VARCHAR   NOT NULL,  -- <payment intent id>:lpe:<hash of code, decline_code, type and payment method>
    payment_intent_id VARCHAR   NOT NULL,
    first_seen_at     TIMESTAMP NOT NULL,  -- _as_of of the first payload that showed it
    payload           JSON      NOT NULL,  -- the last_payment_error itself, pruned
    _loaded_at        TIMESTAMP NOT NULL,
    _load_id          BIGINT    NOT NULL
);

-- Append-only, one row for each webhook event. The event itself is in `events`.
CREATE TABLE IF NOT EXISTS raw_stripe.webhook_events (
    account_id   VARCHAR   NOT NULL,
    livemode     BOOLEAN   NOT NULL,
    event_id     VARCHAR   NOT NULL,
    event_type   VARCHAR   NOT NULL,
    integration  VARCHAR   NOT NULL,
    received_at  TIMESTAMP NOT NULL,  -- this machine's clock when the receiver had it
    _loaded_at   TIMESTAMP NOT NULL,
    _load_id     BIGINT    NOT NULL
);

-- How far each stream is known: checkpoints and watermarks, written in the transaction of the rows they vouch for.
CREATE TABLE IF NOT EXISTS sync.streams (
    account_id         VARCHAR NOT NULL,
    livemode           BOOLEAN NOT NULL,
    stream             VARCHAR NOT NULL,  -- payment_intents | charges | refunds | disputes | payment_intent_events | charge_events
    missing_permission VARCHAR,           -- the permission the key lacks (rak_…_read); NULL where the stream can be read
    complete_through   TIMESTAMP,         -- everything created up to here, on Stripe's clock, is in the tables; NULL until a first pass ends
    known_since        TIMESTAMP,         -- event streams: the instant from which on no event is missing; others: the last listing of everything
    walk_floor         TIMESTAMP,         -- the pass under way covers [walk_floor, walk_ceiling] …
    walk_ceiling       TIMESTAMP,
    open_windows       STRUCT("floor" TIMESTAMP, ceiling TIMESTAMP, "cursor" VARCHAR, cursor_at TIMESTAMP)[],
                                          -- … and has loaded all of it but [floor, ceiling) of these, from cursor down
    updated_at         TIMESTAMP NOT NULL, -- Stripe's clock at the last change of this row
    _updated_at        TIMESTAMP NOT NULL  -- this machine's clock then: how long ago that was, a later run can tell
);

-- The account of each integration's webhook events: the one that its key was last seen to belong to.
CREATE TABLE IF NOT EXISTS sync.integrations (
    integration VARCHAR NOT NULL,
    account_id  VARCHAR NOT NULL,
    key_digest  VARCHAR NOT NULL  -- the start of the key's SHA-256: another key may be another account's
);

-- Requests to Stripe by the day of Stripe's clock. Each try counts, as in Stripe's read allocation.
CREATE TABLE IF NOT EXISTS sync.reads (
    account_id VARCHAR NOT NULL,
    livemode   BOOLEAN NOT NULL,
    day        DATE    NOT NULL,
    endpoint   VARCHAR NOT NULL,  -- the path, with :id for an object's id
    requests   BIGINT  NOT NULL
);

-- Objects of Stripe's lists and retrieves that could not be read. Each sync tries some again; one that became readable is
-- loaded and no longer here.
CREATE TABLE IF NOT EXISTS sync.quarantine (
    account_id    VARCHAR   NOT NULL,
    livemode      BOOLEAN   NOT NULL,
    stream        VARCHAR   NOT NULL,  -- as in sync.streams
    key           VARCHAR   NOT NULL,  -- the object's id, or where it stood in its list
    object_id     VARCHAR,             -- NULL: it has none that can be read
    reason        VARCHAR   NOT NULL,
    "floor"       TIMESTAMP NOT NULL,  -- it was created in [floor, ceiling), on Stripe's clock, as far as its list tells
    ceiling       TIMESTAMP NOT NULL,
    first_seen_at TIMESTAMP NOT NULL,  -- this machine's clock
    last_seen_at  TIMESTAMP NOT NULL
);

-- The ledger: which load wrote to which raw tables, entered in the transaction of the rows, and which complete build has
-- taken it.
CREATE TABLE IF NOT EXISTS sync.loads (
    load_id    BIGINT    NOT NULL,
    table_name VARCHAR   NOT NULL,
    loaded_at  TIMESTAMP NOT NULL,  -- this machine's clock
    build_id   BIGINT               -- NULL until a complete build has taken the load
);

-- The last complete build of all models, and the builds since: of some models, or failed.
DROP TABLE IF EXISTS sync.builds;  -- of an earlier release
CREATE TABLE IF NOT EXISTS sync.model_builds (
    build_id    BIGINT    NOT NULL,  -- from sync.load_ids
    is_good     BOOLEAN   NOT NULL,  -- all models were built and all blocking tests passed
    began_at    TIMESTAMP NOT NULL,  -- this machine's clock
    fingerprint VARCHAR,             -- of the dbt project's files; NULL: dbt was run by hand
    streams     VARCHAR              -- a hash of sync.streams as the models read it; NULL: not known
);

-- Which build last changed each model's table, and which one last replaced it as a whole. Publishing reads it.
CREATE TABLE IF NOT EXISTS sync.model_tables (
    table_schema VARCHAR NOT NULL,
    table_name   VARCHAR NOT NULL,
    changed_by   BIGINT  NOT NULL,  -- a build_id
    replaced_by  BIGINT  NOT NULL,  -- a build_id; rows that changed later have a greater _load_id
    unique_key   VARCHAR[]          -- columns whose rows a build replaces together; NULL: it replaces the whole table
);

-- The analysts' file as it was last published. If the file on disk is another one, it is made from nothing.
CREATE TABLE IF NOT EXISTS sync.published_file (
    identity   VARCHAR NOT NULL,  -- inode, size and time of the last change
    first_size BIGINT  NOT NULL   -- bytes, when it was last made from nothing
);
CREATE TABLE IF NOT EXISTS sync.published_tables (
    title      VARCHAR NOT NULL,  -- schema and name in the file
    condition  VARCHAR NOT NULL,  -- which rows of the warehouse's table it holds
    changed_by BIGINT  NOT NULL   -- the build of sync.model_tables that it holds
);

-- The number of the build that began last. Rows with a _load_id of at least first_load_id are new to the models.
CREATE VIEW IF NOT EXISTS sync.next_build AS
SELECT
    max(build_id) AS build_id,
    least(
        (SELECT min(load_id) FROM sync.loads WHERE build_id IS NULL),
        min(build_id) FILTER (NOT is_good)
    ) AS first_load_id
FROM sync.model_builds;
