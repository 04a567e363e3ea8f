-- How many slots of each port type are free, as far as the statistics of the last ANALYZE tell.

-- The types of the slots in a column and whether they have a peer hang together: which types run short is
-- what one wants to know. ANALYZE counts the pairs in the rows that it samples anyway.
CREATE STATISTICS widgets.widgets_slot1 (mcv) ON port1, (peer1 IS NULL) FROM widgets.widgets;
CREATE STATISTICS widgets.widgets_slot2 (mcv) ON port2, (peer2 IS NULL) FROM widgets.widgets;
CREATE STATISTICS widgets.widgets_slot3 (mcv) ON port3, (peer3 IS NULL) FROM widgets.widgets;

-- 0 until the first ANALYZE after this, which autovacuum starts by itself.
CREATE FUNCTION widgets.estimated_free_slots(
    OUT p double precision, OUT q double precision, OUT r double precision
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT rows * shares.p, rows * shares.q, rows * shares.r
    FROM (
        SELECT greatest(reltuples, 0) AS rows FROM pg_class
        WHERE oid = 'widgets.widgets'::regclass
    ) counted
    CROSS JOIN (
        SELECT coalesce(sum(share) FILTER (WHERE port = 'P'), 0) AS p,
            coalesce(sum(share) FILTER (WHERE port = 'Q'), 0) AS q,
            coalesce(sum(share) FILTER (WHERE port = 'R'), 0) AS r
        FROM (
            -- Each pair has a port and whether it is free, and its share of the widgets.
            SELECT stats.most_common_vals[place][1] AS port, stats.most_common_freqs[place] AS share
            FROM pg_stats_ext stats
            CROSS JOIN LATERAL generate_subscripts(stats.most_common_freqs, 1) AS list (place)
            WHERE stats.schemaname = 'widgets' AND stats.tablename = 'widgets'
                AND stats.statistics_name IN ('widgets_slot1', 'widgets_slot2', 'widgets_slot3')
                AND stats.most_common_vals[place][2] = 't'
        ) pair
    ) shares
$$;

-- Whoever may ask for the other estimates may ask for this one, roles that somebody else granted it included.
DO $$
DECLARE
    role_name name;
BEGIN
    FOR role_name IN
        SELECT pg_get_userbyid(granted.grantee)
        FROM pg_proc function CROSS JOIN LATERAL aclexplode(function.proacl) granted
        WHERE function.oid = 'widgets.estimated_counts()'::regprocedure
            AND granted.grantee NOT IN (0, function.proowner)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION widgets.estimated_free_slots() TO %I', role_name);
    END LOOP;
END
$$;
