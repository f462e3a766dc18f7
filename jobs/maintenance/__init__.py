"""The steps of maintaining one table (jobs/maintain.py): layout, retention, compact, vacuum; and what they need."""
