"""``headrace demo``: a year of real flights through Kafka and Spark into Delta tables, with a crash on the way and proof."""
