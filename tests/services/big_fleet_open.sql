-- What is open. Some of the 2,000 that are out are late, some of the 300 holds are over.
SELECT pg_temp.rent('active', '[94700,96700)', 2000, '-2 days', '47 hours 45 minutes', '0');
SELECT pg_temp.rent('held', '[96700,97000)', 300, '2 days', '3 days', '0');
SELECT pg_temp.rent('reserved', '[97000,100000)', 3000, '10 days', '3 days', '0');
