"""Setup: makes the values and objects that engines take, from the settings. Only Dagster, `cli` and `web` call it."""
