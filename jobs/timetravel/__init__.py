"""A table as it was: its history, what differs between two versions, and going back to one."""
