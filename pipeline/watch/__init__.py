"""Looking at the whole: a survey of the cluster (streams, shards, lags, dead letters), the exporter that tells it to
Prometheus,
and what `headrace top` and `headrace doctor` show."""
