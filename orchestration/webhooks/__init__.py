"""Stripe's push: received, verified, kept on disk before it is acknowledged, and loaded by the next run.

`signature` and `payloads` say what is genuine, `queue` keeps it, `group_commit` stores many in one commit,
`receiver` is the HTTP side, `ingest` loads it into the warehouse. Nothing here knows Dagster.
"""
