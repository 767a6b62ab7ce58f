"""Dagster's view of the pipeline: what each step produces and what is worth knowing about it. Thin: the engines work."""
