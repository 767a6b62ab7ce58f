"""Setup: makes the values and objects that the engines use from the settings. Only Dagster, `cli` and `web` call it."""
