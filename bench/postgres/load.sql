-- Loads :widgets widgets with slots P and Q, and 3 associations on P for every 10 widgets, into an empty
-- database that `widgets migrate` has prepared. Peers are stored far apart, as they are in practice.
--   psql -v widgets=10000000 -f load.sql
--
-- Drops the primary key first and recreates it afterwards. The invariants that the triggers enforce are
-- checked once, at the end.
\set ON_ERROR_STOP on
BEGIN;
SET LOCAL work_mem = '1GB';
SET LOCAL maintenance_work_mem = '2GB';
SET LOCAL synchronous_commit = off;
SELECT :widgets * 3 / 10 AS associations \gset
ALTER TABLE widgets.widgets DROP CONSTRAINT widgets_serial_number_key, DISABLE TRIGGER USER;

-- 7368787 is prime, so n * 7368787 % associations is a permutation.
INSERT INTO widgets.widgets (serial_number, name, port1, port2, peer1)
SELECT 'W' || lpad(n::text, 9, '0'), 'widget ' || n, 'P', 'Q', 'W' || lpad(peer::text, 9, '0')
FROM (
    SELECT n, :associations + n * 7368787 % :associations AS peer
    FROM generate_series(0::bigint, :associations - 1) n
    UNION ALL
    SELECT :associations + n * 7368787 % :associations, n
    FROM generate_series(0::bigint, :associations - 1) n
    UNION ALL
    SELECT n, NULL FROM generate_series(2::bigint * :associations, :widgets - 1) n
) loaded
ORDER BY n;

ANALYZE widgets.widgets;
ALTER TABLE widgets.widgets ADD CONSTRAINT widgets_serial_number_key PRIMARY KEY (serial_number);
SELECT count(*) = 2 * :associations AS sound
FROM widgets.widgets one JOIN widgets.widgets two
    ON two.serial_number = one.peer1 AND two.peer1 = one.serial_number \gset
\if :sound
\else
\warn 'half an association'
\quit 1
\endif
ALTER TABLE widgets.widgets ENABLE TRIGGER USER;
COMMIT;
VACUUM (FREEZE) widgets.widgets;
CHECKPOINT;
SELECT relname, pg_size_pretty(pg_relation_size(oid)) AS size
FROM pg_class WHERE relnamespace = 'widgets'::regnamespace AND relkind IN ('r', 'i')
ORDER BY pg_relation_size(oid) DESC;
