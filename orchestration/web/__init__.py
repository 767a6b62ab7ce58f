"""What answers over HTTP beside Dagster: the webhook receiver's application, the OAuth callback page, the UI's guard."""
