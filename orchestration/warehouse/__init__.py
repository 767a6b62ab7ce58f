"""DuckDB: the raw tables, the newer-wins load, the checkpoints, and the file that analysts open.

Belongs here: all SQL that writes raw tables, and the scrubbing that every payload passes before it is stored. Does
not: where payloads come from (`sync`, `webhooks`), and what they mean (dbt's staging models read the JSON).
"""
