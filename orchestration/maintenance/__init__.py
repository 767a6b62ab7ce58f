"""What keeps the data folder in order: deleting old history, and moving damaged databases aside."""
