"""The checks behind `headrace audit`: what the log holds against what the tables hold, by plain batch queries."""
