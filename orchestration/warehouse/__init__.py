"""The DuckDB warehouse: raw tables, the load, checkpoints, and the file that analysts open.

Belongs here: all SQL that writes raw tables, and the redaction of every payload before it is stored.
Does not: reading from Stripe (`sync`, `webhooks`) and interpreting payloads (dbt's staging models read the JSON).
"""
