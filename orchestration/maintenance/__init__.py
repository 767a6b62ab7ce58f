"""Maintenance of the data folder: deleting old history, and moving damaged databases aside."""
