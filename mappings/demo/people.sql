-- 20,000 fictional people, the same every time.
CREATE OR REPLACE TABLE people AS
WITH numbered AS (
    SELECT i, CAST(hash(i) >> 1 AS BIGINT) AS h, CAST(hash(i, 'orders') >> 1 AS BIGINT) AS g FROM range(1, 20001) AS r(i)
),
named AS (
    SELECT
        *,
        ['Ana', 'Ben', 'Chloe', 'Dev', 'Elif', 'Femi', 'Grace', 'Hugo', 'Ines', 'Jonas',
         'Kaia', 'Liam', 'Mei', 'Noor', 'Oskar', 'Priya', 'Quinn', 'Rosa', 'Sven', 'Tala'][1 + h % 20] AS first_name,
        ['Abara', 'Brandt', 'Costa', 'Dubois', 'Eriksen', 'Ferrari', 'Garcia', 'Haddad', 'Ito', 'Jensen',
         'Khan', 'Lindgren', 'Moreau', 'Novak', 'Okafor', 'Patel', 'Rossi', 'Schmidt', 'Tanaka', 'Weber']
            [1 + (h // 20) % 20] AS last_name
    FROM numbered
)
SELECT
    'C' || lpad(CAST(i AS VARCHAR), 6, '0') AS customer_id,
    first_name,
    last_name,
    lower(first_name || '.' || last_name) || '.' || i || '@customers.example' AS email,
    ['AU', 'DE', 'FR', 'GB', 'IN', 'JP', 'NG', 'SE', 'US'][1 + (h // 400) % 9] AS country,
    DATE '2019-01-01' + CAST((h // 3600) % 2200 AS INTEGER) AS signed_up_on,
    CAST(g % 16 AS INTEGER) AS orders,
    CAST((g % 16) * (1500 + (g // 16) % 9000) AS BIGINT) AS ltv_cents,
    (g // 1000) % 10 < 9 AS consented,
    (g // 10000) % 50 = 0 AS closed
FROM named;
