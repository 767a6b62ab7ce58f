"""Stripe's JSON of the simulated objects, at the pinned API version."""
