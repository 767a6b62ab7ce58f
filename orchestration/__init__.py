"""Recoup's Python side: Dagster on the outside, engines inside that know nothing of Dagster.

    definitions, assets, checks, jobs, schedules, resources    Dagster: thin, one file for each kind of thing
    pipeline       extract, models, publish: the three steps that Dagster and the command line share
    transform      running the dbt project
    settings       THE place for paths and environment variables
    stripe_api     talking to Stripe: requests, retries, errors in our words
    sync           the sync engine: streams, walks, the change feed, checkpoints
    warehouse      DuckDB: raw tables, the newer-wins load, the published file
    simulator      a Stripe account that lives on this machine
    cli            the `recoup` command

Arrows run one way: sync -> stripe_api, sync -> warehouse. Nothing but `cli` and the tests imports `simulator`.
"""
