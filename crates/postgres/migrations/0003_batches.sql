-- What the service calls: a whole batch of operations in one transaction, and lookups by the batch.

-- Applies a batch in which no widget is named twice, and gives each operation its own outcome.
--
-- The operations of one kind are parallel arrays. The slots of the widgets to add are arrays of
-- their own, one element for each slot, naming their widget. pair_associates tells associate_widgets
-- (true) from remove_association (false). The outcomes stand in the order of the operations: 'ok' or
-- the code of the refusal, followed by /1 or /2 where it concerns one of two widgets. The caller has
-- checked arguments and limits, and knows the messages.
--
-- All decisions rest on locked rows, and the writes count what they change: if anything is not as
-- it was decided, the whole call fails with 40001 and may be made again. All calls take locks in
-- one order: on the serial numbers to add, then on the widgets to remove, then on slots by
-- (widget_sn, ordinal). That keeps them from deadlocking (40P01); nothing rests on it.
--
-- A locked row stays where it is, so the writes find it by its place (ctid) and not by another search
-- of an index. A place is kept as a text of the ordinal and the ctid: of several the least one has the
-- lowest ordinal.
--
-- The settings make each plan a loop over the arrays with an index search for each element, however
-- large the tables are and whatever the statistics say.
CREATE FUNCTION widgets.apply_operations(
    add_sns text[], add_names text[],
    slot_sns text[], slot_ordinals smallint[], slot_ports widgets.port_type[],
    remove_sns text[],
    pair_sns1 text[], pair_sns2 text[], pair_ports widgets.port_type[], pair_associates boolean[],
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
    removed text[];
    freed_sns text[];               -- the peers' slots: of which widget,
    freed_ports widgets.port_type[];
    freed_peers text[];             -- naming which removed one,
    freed_places text[];            -- and which slot
    removed_widgets tid[];          -- where the rows to delete are
    places1 text[];                 -- the slots to change, in the order of the pairs
    places2 text[];
    to_change bigint;
    changed bigint;
BEGIN
    IF add_sns <> '{}' THEN
        -- One that is taken between the two statements fails the call (23505): it may be made again.
        SELECT array_agg(widget.serial_number) INTO taken
        FROM unnest(add_sns) AS given (sn)
        JOIN widgets.widgets widget ON widget.serial_number = given.sn;
        IF taken IS NULL THEN
            add_outcomes := array_fill('ok'::text, ARRAY[cardinality(add_sns)]);
            INSERT INTO widgets.widgets (serial_number, name)
            SELECT given.sn, given.name FROM unnest(add_sns, add_names) AS given (sn, name)
            ORDER BY given.sn COLLATE "C";
            INSERT INTO widgets.slots (widget_sn, ordinal, port)
            SELECT given.sn, given.ordinal, given.port
            FROM unnest(slot_sns, slot_ordinals, slot_ports) AS given (sn, ordinal, port);
        ELSE
            -- "IS NOT TRUE" keeps these a look into a hash table, not a join.
            SELECT array_agg(
                CASE WHEN given.sn IN (SELECT unnest(taken)) THEN '23505' ELSE 'ok' END
                ORDER BY given.i)
            INTO add_outcomes
            FROM unnest(add_sns) WITH ORDINALITY AS given (sn, i);
            INSERT INTO widgets.widgets (serial_number, name)
            SELECT given.sn, given.name FROM unnest(add_sns, add_names) AS given (sn, name)
            WHERE (given.sn IN (SELECT unnest(taken))) IS NOT TRUE
            ORDER BY given.sn COLLATE "C";
            INSERT INTO widgets.slots (widget_sn, ordinal, port)
            SELECT given.sn, given.ordinal, given.port
            FROM unnest(slot_sns, slot_ordinals, slot_ports) AS given (sn, ordinal, port)
            WHERE (given.sn IN (SELECT unnest(taken))) IS NOT TRUE;
        END IF;
    END IF;

    IF remove_sns <> '{}' THEN
        SELECT array_agg(serial_number), array_agg(place) INTO removed, removed_widgets
        FROM (
            SELECT widget.serial_number, widget.ctid AS place
            FROM unnest(remove_sns) AS given (sn)
            JOIN widgets.widgets widget ON widget.serial_number = given.sn
            ORDER BY widget.serial_number
            FOR UPDATE OF widget
        ) locked;
        SELECT array_agg(
            CASE WHEN (given.sn IN (SELECT unnest(removed))) IS TRUE THEN 'ok' ELSE 'WG001' END
            ORDER BY given.i)
        INTO remove_outcomes
        FROM unnest(remove_sns) WITH ORDINALITY AS given (sn, i);
        -- Only to know what to lock: the peers are read again under the lock.
        SELECT array_agg(slot.peer_sn), array_agg(slot.port), array_agg(slot.widget_sn)
        INTO freed_sns, freed_ports, freed_peers
        FROM unnest(removed) AS given (sn)
        JOIN widgets.slots slot ON slot.widget_sn = given.sn
        WHERE slot.peer_sn IS NOT NULL;
    END IF;

    IF removed IS NULL AND pair_sns1 = '{}' THEN
        RETURN;
    END IF;

    -- Locks every slot that the batch can change or that a decision rests on, and decides.
    WITH locked AS (
        SELECT named.kind, named.i, named.side, named.peer_sn AS other, slot.peer_sn,
            slot.ordinal::text || slot.ctid::text AS place
        FROM (
            SELECT 'pair' AS kind, pair.i, 1 AS side, pair.sn1 AS sn, pair.port, pair.sn2 AS peer_sn
            FROM unnest(pair_sns1, pair_sns2, pair_ports) WITH ORDINALITY
                AS pair (sn1, sn2, port, i)
            UNION ALL
            SELECT 'pair', pair.i, 2, pair.sn2, pair.port, pair.sn1
            FROM unnest(pair_sns1, pair_sns2, pair_ports) WITH ORDINALITY
                AS pair (sn1, sn2, port, i)
            UNION ALL
            SELECT 'removed', 0, 0, given.sn, NULL, NULL FROM unnest(removed) AS given (sn)
            UNION ALL
            SELECT 'freed', freed.i, 0, freed.sn, freed.port, freed.peer_sn
            FROM unnest(freed_sns, freed_ports, freed_peers) WITH ORDINALITY
                AS freed (sn, port, peer_sn, i)
        ) named
        JOIN widgets.slots slot
            ON slot.widget_sn = named.sn AND (named.port IS NULL OR slot.port = named.port)
        ORDER BY slot.widget_sn, slot.ordinal
        FOR UPDATE OF slot
    ), counted AS (
        SELECT
            kind, i, bool_or(associates) AS associates,
            count(peer_sn) AS links,
            count(*) FILTER (WHERE side = 1) AS count1,
            count(*) FILTER (WHERE side = 2) AS count2,
            min(place) FILTER (WHERE side = 1 AND peer_sn IS NULL) AS free1,
            min(place) FILTER (WHERE side = 2 AND peer_sn IS NULL) AS free2,
            min(place) FILTER (WHERE side = 1 AND peer_sn = other) AS linked1,
            min(place) FILTER (WHERE side = 2 AND peer_sn = other) AS linked2,
            min(place) FILTER (WHERE side = 0 AND peer_sn = other) AS linked
        FROM (
            SELECT kind, i, NULL::boolean AS associates, side, other, place, peer_sn FROM locked
            UNION ALL
            -- A row more for each pair: one may have no slot.
            SELECT 'pair', pair.i, pair.associates, NULL, NULL, NULL, NULL
            FROM unnest(pair_associates) WITH ORDINALITY AS pair (associates, i)
        ) known
        GROUP BY kind, i
    ), decided AS (
        SELECT kind, i, links, linked,
            CASE WHEN associates THEN free1 ELSE linked1 END AS place1,
            CASE WHEN associates THEN free2 ELSE linked2 END AS place2,
            CASE
                -- Missing, or without such a slot: see below.
                WHEN count1 = 0 OR count2 = 0 THEN '?'
                WHEN NOT associates THEN CASE WHEN linked1 IS NULL THEN 'WG004' ELSE 'ok' END
                WHEN linked1 IS NOT NULL THEN 'WG003'
                WHEN free1 IS NULL THEN 'WG002/1'
                WHEN free2 IS NULL THEN 'WG002/2'
                ELSE 'ok'
            END AS outcome
        FROM counted
    )
    SELECT
        array_agg(outcome ORDER BY i) FILTER (WHERE kind = 'pair'),
        array_agg(place1 ORDER BY i) FILTER (WHERE kind = 'pair'),
        array_agg(place2 ORDER BY i) FILTER (WHERE kind = 'pair'),
        array_agg(linked ORDER BY i) FILTER (WHERE kind = 'freed'),
        coalesce(sum(links) FILTER (WHERE kind = 'removed'), 0)
            + 2 * count(*) FILTER (WHERE kind = 'pair' AND outcome = 'ok')
    INTO pair_outcomes, places1, places2, freed_places, to_change
    FROM decided;

    -- A widget without such a slot is not locked by it. It does not exist, or it never has one, and
    -- that is decided on one moment after the locks. Where both have one by now, one of the two has
    -- only just come into being.
    IF '?' = ANY (pair_outcomes) THEN
        SELECT array_agg(
            CASE
                WHEN pair.outcome <> '?' THEN pair.outcome
                WHEN NOT EXISTS (SELECT FROM widgets.widgets widget
                    WHERE widget.serial_number = pair.sn1) THEN 'WG001/1'
                WHEN NOT EXISTS (SELECT FROM widgets.widgets widget
                    WHERE widget.serial_number = pair.sn2) THEN 'WG001/2'
                WHEN EXISTS (SELECT FROM widgets.slots slot
                        WHERE slot.widget_sn = pair.sn1 AND slot.port = pair.port)
                    AND EXISTS (SELECT FROM widgets.slots slot
                        WHERE slot.widget_sn = pair.sn2 AND slot.port = pair.port) THEN '40001'
                WHEN NOT pair.associates THEN 'WG004'
                WHEN NOT EXISTS (SELECT FROM widgets.slots slot
                    WHERE slot.widget_sn = pair.sn1 AND slot.port = pair.port
                        AND slot.peer_sn IS NULL) THEN 'WG002/1'
                ELSE 'WG002/2'
            END ORDER BY i)
        INTO pair_outcomes
        FROM unnest(pair_sns1, pair_sns2, pair_ports, pair_associates, pair_outcomes)
            WITH ORDINALITY AS pair (sn1, sn2, port, associates, outcome, i);
        IF '40001' = ANY (pair_outcomes) THEN
            PERFORM widgets.refuse_conflict();
        END IF;
    END IF;

    UPDATE widgets.slots slot SET peer_sn = change.to_peer
    FROM (
        SELECT pair.sn1 AS sn, pair.place1 AS place,
            CASE WHEN NOT pair.associates THEN pair.sn2 END AS from_peer,
            CASE WHEN pair.associates THEN pair.sn2 END AS to_peer
        FROM unnest(pair_sns1, pair_sns2, pair_associates, pair_outcomes, places1)
            AS pair (sn1, sn2, associates, outcome, place1)
        WHERE pair.outcome = 'ok'
        UNION ALL
        SELECT pair.sn2, pair.place2,
            CASE WHEN NOT pair.associates THEN pair.sn1 END,
            CASE WHEN pair.associates THEN pair.sn1 END
        FROM unnest(pair_sns1, pair_sns2, pair_associates, pair_outcomes, places2)
            AS pair (sn1, sn2, associates, outcome, place2)
        WHERE pair.outcome = 'ok'
        UNION ALL
        SELECT freed.sn, freed.place, freed.peer_sn, NULL
        FROM unnest(freed_sns, freed_places, freed_peers) AS freed (sn, place, peer_sn)
    ) change
    WHERE slot.ctid = substr(change.place, 2)::tid AND slot.widget_sn = change.sn
        AND slot.peer_sn IS NOT DISTINCT FROM change.from_peer;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed <> to_change THEN
        PERFORM widgets.refuse_conflict();
    END IF;

    IF removed IS NOT NULL THEN
        -- Not by their places: where both ends of an association are removed, each has freed the other.
        DELETE FROM widgets.slots slot USING unnest(removed) AS given (sn)
        WHERE slot.widget_sn = given.sn;
        DELETE FROM widgets.widgets WHERE ctid = ANY (removed_widgets);
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
    SELECT widget.serial_number, widget.name, slots.ports, slots.peers
    FROM unnest(widget_sns) AS given (sn)
    JOIN widgets.widgets widget ON widget.serial_number = given.sn
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(slot.port::text ORDER BY slot.ordinal), '{}') AS ports,
            coalesce(array_agg(slot.peer_sn ORDER BY slot.ordinal), '{}') AS peers
        FROM widgets.slots slot WHERE slot.widget_sn = widget.serial_number
    ) slots
$$;

-- How much there is, as far as the statistics of the last ANALYZE tell: counting millions of rows
-- would cost more than the number is worth.
CREATE FUNCTION widgets.estimated_counts(
    OUT widgets double precision, OUT free_slots double precision, OUT associations double precision
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT
        (SELECT greatest(reltuples, 0) FROM pg_class
         WHERE oid = 'widgets.widgets'::regclass),
        slots.rows * slots.free, slots.rows * (1 - slots.free) / 2
    FROM (
        SELECT greatest(reltuples, 0) AS rows, coalesce(
            (SELECT null_frac FROM pg_stats WHERE schemaname = 'widgets'
                AND tablename = 'slots' AND attname = 'peer_sn'), 1) AS free
        FROM pg_class WHERE oid = 'widgets.slots'::regclass
    ) slots
$$;

-- The version of the schema: the service asks before it works with it.
CREATE FUNCTION widgets.schema_version() RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT max(version) FROM widgets.migrations
$$;
