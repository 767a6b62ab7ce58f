"""Who is connected: accounts with their keys, tokens and webhook endpoints, and the Stripe client of each."""
