-- Associates :widgets / 60 pairs and removes :widgets / 200 widgets in batches, spread over all widgets, so
-- that nearly every page has been read into memory and changed since the last checkpoint. The runs that
-- follow then measure a server in use and not its first half minute.
--   psql -v widgets=10000000 -f warm.sql
-- The runs of run.sh use these widgets last.
\set ON_ERROR_STOP on
CREATE EXTENSION IF NOT EXISTS pg_prewarm;
SELECT pg_size_pretty(sum(pg_prewarm(oid)) * 8192) AS prewarmed FROM pg_class
WHERE relnamespace = 'widgets'::regnamespace AND relkind IN ('r', 'i');
\o /dev/null
SELECT format($$SELECT widgets.apply_operations('{}', '{}', '{}', '{}', '{}', '{}',
    array_agg('W' || lpad((2 * i * 7368787 %% %3$s)::text, 9, '0')),
    array_agg('W' || lpad(((2 * i + 1) * 7368787 %% %3$s)::text, 9, '0')),
    array_agg('Q'::widgets.port_type), array_agg(true), false)
    FROM generate_series(%1$s::bigint, %2$s) i$$, a, least(a + 4096, last) - 1, :widgets)
FROM (VALUES (:widgets::bigint * 15 / 100), (:widgets::bigint * 30 / 100)) AS ends (last)
CROSS JOIN LATERAL generate_series(last - :widgets / 120, last - 1, 4096) a \gexec
SELECT format($$SELECT widgets.apply_operations('{}', '{}', '{}', '{}', '{}',
    array_agg('W' || lpad((i * 7368787 %% %3$s)::text, 9, '0')), '{}', '{}', '{}', '{}', false)
    FROM generate_series(%1$s::bigint, %2$s) i$$, a, least(a + 4096, :widgets) - 1, :widgets)
FROM generate_series(:widgets::bigint * 995 / 1000, :widgets - 1, 4096) a \gexec
