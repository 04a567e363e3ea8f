-- What the service calls: a whole batch of operations in one transaction, and lookups by the batch.

-- Applies a batch in which no widget is named twice, and gives each operation its own outcome.
--
-- The operations of one kind are parallel arrays; add_ports1 to 3 are the ports of the widgets to add,
-- null where there is no such slot. pair_associates tells associate_widgets (true) from
-- remove_association (false). The outcomes stand in the order of the operations: 'ok' or the code of
-- the refusal, followed by /1 or /2 where it concerns one of two widgets. The caller has checked
-- arguments and limits, and knows the messages.
--
-- Each kind is decided on one moment, which is a refusal's moment too. What is to be written must then
-- still be as it was read: the writes say so and count what they change, and where anything has changed
-- meanwhile the whole call fails with 40001, 23505 (a serial number was taken) or 23503 (one of two
-- halves), and may be made again. With lock_first all widgets are locked beforehand, in the order of
-- their serial numbers, so that a second attempt waits for others instead of losing to them once more.
-- Nothing rests on the locks, nor on their order.
--
-- The settings make each plan a loop over the arrays with an index search for each element, however
-- large the table is and whatever the statistics say.
CREATE FUNCTION widgets.apply_operations(
    add_sns text[], add_names text[], add_ports1 widgets.port_type[],
    add_ports2 widgets.port_type[], add_ports3 widgets.port_type[],
    remove_sns text[],
    pair_sns1 text[], pair_sns2 text[], pair_ports widgets.port_type[], pair_associates boolean[],
    lock_first boolean,
    OUT add_outcomes text[], OUT remove_outcomes text[], OUT pair_outcomes text[]
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    taken text[];
    places1 tid[];                  -- the rows of the pairs' widgets that change,
    versions1 xid[];
    slots1 integer[];               -- and which slot of each
    places2 tid[];
    versions2 xid[];
    slots2 integer[];
    removed text[];                 -- those that exist,
    peers1 text[];                  -- and their peers
    peers2 text[];
    peers3 text[];
    to_change bigint;
    changed bigint;
BEGIN
    IF lock_first THEN
        PERFORM FROM (
            SELECT named.sn FROM unnest(pair_sns1 || pair_sns2 || remove_sns) AS named (sn)
            UNION ALL
            SELECT peer.sn FROM unnest(remove_sns) AS given (sn)
            JOIN widgets.widgets widget ON widget.serial_number = given.sn
            CROSS JOIN LATERAL (VALUES (widget.peer1), (widget.peer2), (widget.peer3)) AS peer (sn)
            ORDER BY 1
        ) named
        JOIN widgets.widgets widget ON widget.serial_number = named.sn
        FOR UPDATE OF widget;
    END IF;

    IF add_sns <> '{}' THEN
        -- One that is taken between the two statements fails the call (23505): it may be made again.
        SELECT array_agg(widget.serial_number) INTO taken
        FROM unnest(add_sns) AS given (sn)
        JOIN widgets.widgets widget ON widget.serial_number = given.sn;
        IF taken IS NULL THEN
            add_outcomes := array_fill('ok'::text, ARRAY[cardinality(add_sns)]);
            INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
            SELECT given.* FROM unnest(add_sns, add_names, add_ports1, add_ports2, add_ports3)
                AS given (sn, name, port1, port2, port3)
            ORDER BY given.sn COLLATE "C";
        ELSE
            -- "IS NOT TRUE" keeps these a look into a hash table, not a join.
            SELECT array_agg(
                CASE WHEN given.sn IN (SELECT unnest(taken)) THEN '23505' ELSE 'ok' END
                ORDER BY given.i)
            INTO add_outcomes
            FROM unnest(add_sns) WITH ORDINALITY AS given (sn, i);
            INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
            SELECT given.* FROM unnest(add_sns, add_names, add_ports1, add_ports2, add_ports3)
                AS given (sn, name, port1, port2, port3)
            WHERE (given.sn IN (SELECT unnest(taken))) IS NOT TRUE
            ORDER BY given.sn COLLATE "C";
        END IF;
    END IF;

    IF pair_sns1 <> '{}' THEN
        SELECT
            array_agg(
                CASE
                    WHEN sn1 IS NULL THEN 'WG001/1'
                    WHEN sn2 IS NULL THEN 'WG001/2'
                    WHEN NOT associates THEN CASE WHEN linked1 IS NULL THEN 'WG004' ELSE 'ok' END
                    WHEN linked1 IS NOT NULL THEN 'WG003'
                    WHEN free1 IS NULL THEN 'WG002/1'
                    WHEN free2 IS NULL THEN 'WG002/2'
                    ELSE 'ok'
                END ORDER BY i),
            array_agg(place1 ORDER BY i), array_agg(version1 ORDER BY i),
            array_agg(CASE WHEN associates THEN free1 ELSE linked1 END ORDER BY i),
            array_agg(place2 ORDER BY i), array_agg(version2 ORDER BY i),
            array_agg(CASE WHEN associates THEN free2 ELSE linked2 END ORDER BY i)
        INTO pair_outcomes, places1, versions1, slots1, places2, versions2, slots2
        FROM (
            SELECT pair.i, pair.associates,
                one.serial_number AS sn1, one.ctid AS place1, one.xmin AS version1,
                widgets.linked_slot(one, pair.port, pair.sn2) AS linked1,
                widgets.free_slot(one, pair.port) AS free1,
                two.serial_number AS sn2, two.ctid AS place2, two.xmin AS version2,
                widgets.linked_slot(two, pair.port, pair.sn1) AS linked2,
                widgets.free_slot(two, pair.port) AS free2
            FROM unnest(pair_sns1, pair_sns2, pair_ports, pair_associates) WITH ORDINALITY
                AS pair (sn1, sn2, port, associates, i)
            LEFT JOIN widgets.widgets one ON one.serial_number = pair.sn1
            LEFT JOIN widgets.widgets two ON two.serial_number = pair.sn2
        ) read;
        -- A place and the transaction that wrote there are one version of a row.
        UPDATE widgets.widgets widget SET
            peer1 = CASE WHEN change.slot = 1 THEN change.peer_sn ELSE peer1 END,
            peer2 = CASE WHEN change.slot = 2 THEN change.peer_sn ELSE peer2 END,
            peer3 = CASE WHEN change.slot = 3 THEN change.peer_sn ELSE peer3 END
        FROM (
            SELECT pair.sn1 AS sn, place, version, slot,
                CASE WHEN pair.associates THEN pair.sn2 END AS peer_sn
            FROM unnest(pair_sns1, pair_sns2, pair_associates, pair_outcomes, places1, versions1, slots1)
                AS pair (sn1, sn2, associates, outcome, place, version, slot)
            WHERE pair.outcome = 'ok'
            UNION ALL
            SELECT pair.sn2, place, version, slot, CASE WHEN pair.associates THEN pair.sn1 END
            FROM unnest(pair_sns1, pair_sns2, pair_associates, pair_outcomes, places2, versions2, slots2)
                AS pair (sn1, sn2, associates, outcome, place, version, slot)
            WHERE pair.outcome = 'ok'
            ORDER BY 1
        ) change
        WHERE widget.ctid = change.place AND widget.xmin = change.version;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> 2 * cardinality(array_positions(pair_outcomes, 'ok')) THEN
            PERFORM widgets.refuse_conflict();
        END IF;
    END IF;

    IF remove_sns <> '{}' THEN
        SELECT array_agg(serial_number), array_agg(peer1), array_agg(peer2), array_agg(peer3)
        INTO removed, peers1, peers2, peers3
        FROM (SELECT named.sn FROM unnest(remove_sns) AS named (sn) ORDER BY 1) given
        JOIN widgets.widgets widget ON widget.serial_number = given.sn;
        SELECT array_agg(
            CASE WHEN (given.sn IN (SELECT unnest(removed))) IS TRUE THEN 'ok' ELSE 'WG001' END
            ORDER BY given.i)
        INTO remove_outcomes
        FROM unnest(remove_sns) WITH ORDINALITY AS given (sn, i);
        IF array_remove(peers1 || peers2 || peers3, NULL) <> '{}' THEN
            -- Frees both halves of what joins them to others. Such another one may be named by several,
            -- and it may be one of them.
            WITH change AS MATERIALIZED (
                SELECT sn, bool_or(is_removed) AS is_removed,
                    min(peer1) AS peer1, min(peer2) AS peer2, min(peer3) AS peer3
                FROM (
                    SELECT given.sn, true AS is_removed, given.peer1, given.peer2, given.peer3
                    FROM unnest(removed, peers1, peers2, peers3) AS given (sn, peer1, peer2, peer3)
                    WHERE num_nonnulls(given.peer1, given.peer2, given.peer3) > 0
                    UNION ALL
                    SELECT peer.sn, false, NULL, NULL, NULL
                    FROM unnest(peers1 || peers2 || peers3) AS peer (sn) WHERE peer.sn IS NOT NULL
                ) named
                GROUP BY sn ORDER BY sn
            ), updated AS (
                UPDATE widgets.widgets widget SET
                    peer1 = CASE WHEN widget.peer1 IN (SELECT unnest(removed)) OR is_removed THEN NULL
                        ELSE widget.peer1 END,
                    peer2 = CASE WHEN widget.peer2 IN (SELECT unnest(removed)) OR is_removed THEN NULL
                        ELSE widget.peer2 END,
                    peer3 = CASE WHEN widget.peer3 IN (SELECT unnest(removed)) OR is_removed THEN NULL
                        ELSE widget.peer3 END
                FROM change
                WHERE widget.serial_number = change.sn
                    AND (NOT is_removed OR (widget.peer1, widget.peer2, widget.peer3)
                        IS NOT DISTINCT FROM (change.peer1, change.peer2, change.peer3))
                RETURNING 1
            )
            SELECT (SELECT count(*) FROM change), (SELECT count(*) FROM updated)
            INTO to_change, changed;
            IF changed <> to_change THEN
                PERFORM widgets.refuse_conflict();
            END IF;
        END IF;
        IF removed IS NOT NULL THEN
            DELETE FROM widgets.widgets widget USING unnest(removed) AS given (sn)
            WHERE widget.serial_number = given.sn
                AND num_nonnulls(widget.peer1, widget.peer2, widget.peer3) = 0;
            GET DIAGNOSTICS changed = ROW_COUNT;
            IF changed <> cardinality(removed) THEN
                PERFORM widgets.refuse_conflict();
            END IF;
        END IF;
    END IF;
END
$$;

-- The widgets of these serial numbers with their slots in order; those that are missing have no row.
-- One statement sees one moment.
CREATE FUNCTION widgets.lookup_widgets(widget_sns text[])
RETURNS TABLE (serial_number text, name text, ports text[], peers text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off
AS $$
    SELECT widget.serial_number, widget.name,
        (ARRAY[port1, port2, port3]::text[])[:num_nonnulls(port1, port2, port3)],
        (ARRAY[peer1, peer2, peer3])[:num_nonnulls(port1, port2, port3)]
    FROM unnest(widget_sns) AS given (sn)
    JOIN widgets.widgets widget ON widget.serial_number = given.sn
$$;

-- How much there is, as far as the statistics of the last ANALYZE tell: counting millions of rows
-- would cost more than the number is worth.
CREATE FUNCTION widgets.estimated_counts(
    OUT widgets double precision, OUT free_slots double precision, OUT associations double precision
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT rows, rows * greatest(slots - halves, 0), rows * halves / 2
    FROM (
        SELECT greatest(reltuples, 0) AS rows FROM pg_class
        WHERE oid = 'widgets.widgets'::regclass
    ) counted
    CROSS JOIN (
        -- Of each column the share of widgets that have such a slot, or such a peer.
        SELECT coalesce(sum(1 - null_frac) FILTER (WHERE attname LIKE 'port_'), 0) AS slots,
            coalesce(sum(1 - null_frac) FILTER (WHERE attname LIKE 'peer_'), 0) AS halves
        FROM pg_stats WHERE schemaname = 'widgets' AND tablename = 'widgets'
    ) shares
$$;

-- The version of the schema: the service asks before it works with it.
CREATE FUNCTION widgets.schema_version() RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT max(version) FROM widgets.migrations
$$;
