"""The parts that every other folder builds on: errors, files, locks, JSON, timestamps. Imports no other folder."""
