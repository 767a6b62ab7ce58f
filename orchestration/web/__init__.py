"""HTTP beside Dagster's own: the webhook receiver, the OAuth callback page, and the guard of Dagster's UI."""
