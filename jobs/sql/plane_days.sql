-- The days of every plane: its flights from one long rest (eight hours without a scheduled departure) to the next.
SELECT
    tailnum,
    session.start AS day_start,
    session.end AS day_end,
    count(*) AS flights,
    count(dep_delay) AS departed,
    sum(distance) AS miles,
    coalesce(sum(dep_delay), 0) AS dep_delay_sum
FROM (
    SELECT *, session_window(scheduled_departure, '8 hours') AS session
    FROM silver.flights
    WHERE tailnum IS NOT NULL
)
GROUP BY tailnum, session
