"""Recoup's Python side: Dagster on the outside, engines inside that know nothing of Dagster.

    definitions, assets, checks, jobs, schedules, sensors, resources    Dagster: thin, one file for each kind of thing
    pipeline       extract or ingest, models, publish: the steps that Dagster and the command line share; dbt, and the
                   plan compiled from it
    history        what Dagster and its runs leave behind, deleted when it is old
    repair         damaged databases: how they are found, moved aside, and started again
    settings       THE place for paths and environment variables
    errors         the base class of expected errors, which end a command with a sentence
    credentials    what Stripe's keys and secrets look like, and what is pasted instead of them
    integrations   accounts by their names, with their keys, and the addresses and secrets of their webhook endpoints
    lenient_json   JSON that a strict parser refuses
    secret_files   files that hold one secret each
    app_connect    how an account authorizes the Stripe App; app_page, where Stripe sends its user back to
    app_tokens     the tokens of these accounts, renewed in time
    asgi           the webhook receiver as an ASGI server loads it
    stripe_api     talking to Stripe: requests, retries, errors in our words, what a key may read
    sync           the sync engine: streams, walks, the change feed, checkpoints
    warehouse      DuckDB: raw tables, the newer-wins load, the published file
    webhooks       what Stripe pushes: receiver, queue, ingest
    simulator      a Stripe account that lives on this machine
    cli            the `recoup` command

Arrows run one way: sync -> stripe_api, sync -> warehouse, webhooks -> warehouse, stripe_api -> credentials; these three
read JSON by `lenient_json`. Every room may import `errors`. Nothing but `cli` and the tests imports `simulator`.
"""
