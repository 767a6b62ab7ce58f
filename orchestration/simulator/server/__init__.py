"""How Stripe answers over HTTP: lists, keys, errors, rate limits, faults, OAuth, webhook deliveries."""
