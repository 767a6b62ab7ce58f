"""Dagster's assets: the tables that each step of the pipeline writes, and their metadata. The engines do the work."""
