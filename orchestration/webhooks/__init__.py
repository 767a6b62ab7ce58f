"""Webhooks: receive Stripe's events, store them in a queue before acknowledging them, and load them into the warehouse.

Belongs here: `receiver` (HTTP), `signature` (verification), `payloads` (parsing), `queue` (durable storage),
`group_commit` (many deliveries per commit) and `ingest` (from the queue into the warehouse). Does not: Dagster.
"""
