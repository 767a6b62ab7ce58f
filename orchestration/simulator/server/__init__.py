"""Stripe's behaviour over HTTP: lists, keys, errors, rate limits, faults, OAuth, webhook deliveries."""
