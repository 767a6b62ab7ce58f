"""The settings, and the format of the credentials that Stripe issues."""
