"""What Stripe shows of it: objects in JSON, at the pinned API version."""
