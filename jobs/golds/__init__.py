"""What a gold table is made by, one file an idea; see docs/gold.md and docs/adr/0030.

    query.py        SQL or Python, its names and its bad input
    plan.py         Spark's plan of a query; keyed.py: the keys it can be recomputed by; multiplying.py: joins that multiply rows
    sources.py      positions, rows and changes of what is read; references.py: static files
    refresh.py      a query computed anew, or for changed keys (keys.py)
    windows.py      event-time windows and sessions; aggregate.py: in one phase, or in two (salted)
    joins.py        two streams, bounded in time
    late.py         rows that came after the watermark; state.py: what windows and joins know after a step
    commit.py       one Delta commit: rows, and what they are made from
"""
