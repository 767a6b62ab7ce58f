"""Dagster's view of the pipeline: what each step makes and what is worth knowing of it. Thin: the engines work."""
