"""Recoup's Python code: Dagster at the root, engines in the folders.

A file at the root is Dagster. A folder is an engine that knows nothing of Dagster; only `assets` is Dagster, too.

    definitions, assets, checks, jobs, schedules, sensors, resources    Dagster: one file for each kind of definition

    cli            the `recoup` command
    pipeline       extract, ingest, build and publish: the steps that Dagster and the command line share
    web            the webhook receiver's application, the OAuth callback page, the guard of the UI
    maintenance    deleting old history, and moving damaged databases aside
    accounts       who is connected: accounts, their keys, tokens and webhook endpoints, and the client of each
    sync           the sync engine: streams, windows of lists, change feeds, checkpoints
    webhooks       what Stripe pushes: receiver, queue, ingest
    stripe_api     requests to Stripe, their limits and errors, and what a key may read
    warehouse      DuckDB: raw tables, the newer-wins load, the ledger of loads, the published file
    config         settings (the only reader of the environment), and what Stripe's keys and secrets look like
    base           errors, files, locks, JSON, and the key of an account
    simulator      a simulated Stripe account: world (what happens), stripe (its JSON), server (HTTP and webhooks)

Imports run downwards in this order. Nothing but `cli` and the tests imports `simulator`.
"""
