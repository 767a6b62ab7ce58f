"""Stripe's push: received, verified, kept on disk before it is acknowledged, and loaded by the next run.

`signature` and `envelopes` say what is genuine, `queue` keeps it, `intake` makes many into one commit, `receiver` is
the HTTP side, `ingest` carries it into the warehouse. Nothing here knows Dagster.
"""
