"""What every engine builds on: errors, files, locks, JSON, and the key of an account. Imports no other folder."""
