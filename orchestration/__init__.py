"""Recoup's Python code: Dagster at the root, engines in the folders.

Files at the root define Dagster objects, and so does `assets`. Every other folder is an engine without Dagster.
`cli` starts Dagster.

    definitions, assets, checks, jobs, partitions, schedules, sensors, resources    Dagster: one file for each kind

    cli            the `recoup` command
    web            the webhook receiver, the OAuth callback page, the guard of Dagster's UI, the report beside the UI
    setup          makes the objects that the engines use from the settings
    pipeline       the steps that Dagster and the command line share: extract, ingest, build, publish
    report         the report page: its SQL, its charts, and how it is written
    maintenance    deletes old history, and moves damaged databases aside
    accounts       connected accounts: their keys, tokens, webhook endpoints and API clients
    sync           the sync engine: streams, list windows, change feeds, checkpoints
    webhooks       webhook events: receiver, queue, ingest
    stripe_api     requests to Stripe, rate limits, errors, and the permissions of a key
    warehouse      DuckDB: raw tables, loads in which the newer version wins, the ledger of loads, the published file
    config         settings (the only code that reads the environment), and the format of Stripe's keys and secrets
    base           errors, files, locks, JSON, account keys
    simulator      a simulated Stripe account: world (events), stripe (JSON objects), server (HTTP and webhooks)

A module imports only from folders below its own in this list. Only `cli` and the tests import `simulator`.
"""
