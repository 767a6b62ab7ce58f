"""What a user can set, and what the secrets of Stripe look like."""
