"""What answers over HTTP beside Dagster: the webhook receiver, the OAuth callback page, and the guard of the UI."""
