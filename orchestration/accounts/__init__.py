"""The connected accounts: their keys, tokens and webhook endpoints, and a Stripe client for each."""
