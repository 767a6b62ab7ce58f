"""What really happens in the simulated account: payers, shops, their stories, and the truth. No JSON, no HTTP."""
