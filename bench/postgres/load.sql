-- Loads :widgets widgets with slots P and Q, and 3 associations on P for 10 widgets, into a database
-- that `widgets migrate` has prepared and that is empty. Peers lie far apart, as they do in life.
--   psql -v widgets=10000000 -f load.sql
--
-- The constraints are dropped first and made again afterwards, which checks everything loaded.
\set ON_ERROR_STOP on
BEGIN;
SET LOCAL work_mem = '1GB';
SET LOCAL maintenance_work_mem = '2GB';
SET LOCAL synchronous_commit = off;
SELECT :widgets * 3 / 10 AS associations \gset
ALTER TABLE widgets.slots DROP CONSTRAINT slots_association_fkey,
    DROP CONSTRAINT slots_association_key, DROP CONSTRAINT slots_pkey, DISABLE TRIGGER USER;
ALTER TABLE widgets.widgets DROP CONSTRAINT widgets_serial_number_key;

INSERT INTO widgets.widgets (serial_number, name)
SELECT 'W' || lpad(n::text, 9, '0'), 'widget ' || n FROM generate_series(0, :widgets - 1) n;

-- 7368787 is prime, and so n * 7368787 % associations is a permutation.
INSERT INTO widgets.slots (widget_sn, ordinal, port, peer_sn)
SELECT 'W' || lpad(n::text, 9, '0'), ordinal, port::widgets.port_type, 'W' || lpad(peer::text, 9, '0')
FROM (
    SELECT n, 0 AS ordinal, 'P' AS port, :associations + n * 7368787 % :associations AS peer
    FROM generate_series(0::bigint, :associations - 1) n
    UNION ALL
    SELECT :associations + n * 7368787 % :associations, 0, 'P', n
    FROM generate_series(0::bigint, :associations - 1) n
    UNION ALL
    SELECT n, 0, 'P', NULL FROM generate_series(2::bigint * :associations, :widgets - 1) n
    UNION ALL
    SELECT n, 1, 'Q', NULL FROM generate_series(0::bigint, :widgets - 1) n
) loaded
ORDER BY n, ordinal;

ANALYZE widgets.widgets, widgets.slots;
ALTER TABLE widgets.widgets ADD CONSTRAINT widgets_serial_number_key PRIMARY KEY (serial_number);
ALTER TABLE widgets.slots ADD CONSTRAINT slots_pkey PRIMARY KEY (widget_sn, ordinal);
ALTER TABLE widgets.slots ADD CONSTRAINT slots_association_key UNIQUE (widget_sn, port, peer_sn);
ALTER TABLE widgets.slots ADD CONSTRAINT slots_association_fkey
    FOREIGN KEY (peer_sn, port, widget_sn)
    REFERENCES widgets.slots (widget_sn, port, peer_sn) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE widgets.slots ENABLE TRIGGER USER;
COMMIT;
VACUUM (FREEZE) widgets.widgets, widgets.slots;
CHECKPOINT;
SELECT relname, pg_size_pretty(pg_relation_size(oid)) AS size
FROM pg_class WHERE relnamespace = 'widgets'::regnamespace AND relkind IN ('r', 'i')
ORDER BY pg_relation_size(oid) DESC;
