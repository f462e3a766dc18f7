"""Records published again: dead letters that were looked at, and stretches of a log."""
