-- The cohort: one row a person. Run it again whenever `people` has changed.
CREATE SCHEMA IF NOT EXISTS marts;

CREATE OR REPLACE TABLE marts.vip_customers AS
SELECT
    customer_id,
    email,
    first_name,
    country,
    CASE WHEN orders >= 12 THEN 'gold' ELSE 'silver' END AS tier,
    ltv_cents,
    CAST(now() AS TIMESTAMPTZ) AS _refreshed_at
FROM people
WHERE orders >= 5 AND consented AND NOT closed;
