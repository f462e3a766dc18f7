-- Departure delays per airport and scheduled hour, beside that hour's weather (null where no weather was observed).
-- Sums are of whole minutes, so they are exact; the mean is over the flights that departed.
WITH hours AS (
    SELECT
        origin,
        time_hour,
        count(*) AS flights,
        count(dep_delay) AS departed,
        count_if(status = 'CANCELLED') AS cancelled,
        coalesce(sum(dep_delay), 0) AS dep_delay_sum,
        max(dep_delay) AS dep_delay_max,
        sum(dep_delay) / count(dep_delay) AS dep_delay_mean
    FROM silver.flights
    GROUP BY origin, time_hour
)
SELECT
    hours.*,
    weather.temp,
    weather.wind_speed,
    weather.wind_gust,
    weather.precip,
    weather.visib
FROM hours
LEFT JOIN silver.weather AS weather USING (origin, time_hour)
