-- One row an airline: its name, its flights and delays, and the average age of the planes it flew in 2013, the year of
-- the data. A plane counts once an airline; planes that the reference does not know, or without a year, have no age.
WITH flown AS (
    SELECT DISTINCT carrier, tailnum
    FROM silver.flights
    WHERE tailnum IS NOT NULL
),

fleets AS (
    SELECT
        flown.carrier,
        count(*) AS planes,
        count(planes.year) AS planes_with_age,
        avg(2013 - planes.year) AS plane_age_mean_years
    FROM flown
    LEFT JOIN reference.planes AS planes USING (tailnum)
    GROUP BY flown.carrier
),

totals AS (
    SELECT
        carrier,
        count(*) AS flights,
        count(dep_delay) AS departed,
        count_if(status = 'ARRIVED') AS arrived,
        count_if(status = 'CANCELLED') AS cancelled,
        coalesce(sum(dep_delay), 0) AS dep_delay_sum,
        coalesce(sum(arr_delay), 0) AS arr_delay_sum
    FROM silver.flights
    GROUP BY carrier
)

SELECT
    totals.carrier,
    airlines.name,
    totals.flights,
    totals.departed,
    totals.arrived,
    totals.cancelled,
    totals.dep_delay_sum,
    totals.arr_delay_sum,
    coalesce(fleets.planes, 0) AS planes,
    coalesce(fleets.planes_with_age, 0) AS planes_with_age,
    fleets.plane_age_mean_years
FROM totals
LEFT JOIN reference.airlines AS airlines USING (carrier)
LEFT JOIN fleets USING (carrier)
