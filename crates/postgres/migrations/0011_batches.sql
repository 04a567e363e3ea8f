-- Batches: additions are written without looking first, operations on two widgets follow the rules of 0009, and a
-- distributed table uses the functions of 0010.

-- Adds widgets for decide_batch, and returns the outcome of each.
--
-- Most batches contain no serial number that is taken, and the primary key refuses one that is. So this function writes
-- first. If the key refuses, it looks up which serial numbers are taken, and it looks first in the next 64 batches of
-- the session, so that sessions that often meet taken serial numbers do not write in vain. The count affects only
-- speed.
CREATE FUNCTION widgets.add_batch(
    add_sns text[], add_names text[], add_ports1 widgets.port_type[],
    add_ports2 widgets.port_type[], add_ports3 widgets.port_type[], lock_first boolean
) RETURNS text[]
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    looks text := current_setting('widgets.look_first', true);
    looks_first CONSTANT boolean := looks ~ '^[1-9][0-9]?$';
    taken text[];
    outcomes text[];
BEGIN
    IF NOT lock_first AND looks_first IS NOT TRUE THEN
        BEGIN
            INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
            SELECT given.* FROM unnest(add_sns, add_names, add_ports1, add_ports2, add_ports3)
                AS given (sn, name, port1, port2, port3)
            ORDER BY given.sn COLLATE "C";
            RETURN array_fill('ok'::text, ARRAY[cardinality(add_sns)]);
        EXCEPTION WHEN unique_violation THEN
            NULL;
        END;
    END IF;

    SELECT array_agg(widget.serial_number) INTO taken
    FROM unnest(add_sns) AS given (sn)
    JOIN widgets.widgets widget ON widget.serial_number = given.sn;
    IF taken IS NOT NULL THEN
        PERFORM set_config('widgets.look_first', '64', false);
    ELSIF looks_first THEN
        PERFORM set_config('widgets.look_first', (looks::integer - 1)::text, false);
    END IF;
    -- If a serial number is taken between the two statements, the call fails with 23505 and can be repeated.
    IF lock_first THEN
        PERFORM set_config('lock_timeout', '2ms', true);
        BEGIN
            -- With "IS NOT TRUE" PostgreSQL looks into a hash table instead of joining.
            INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
            SELECT given.* FROM unnest(add_sns, add_names, add_ports1, add_ports2, add_ports3)
                AS given (sn, name, port1, port2, port3)
            WHERE (given.sn IN (SELECT unnest(taken))) IS NOT TRUE
            ORDER BY given.sn COLLATE "C";
        EXCEPTION WHEN lock_not_available OR unique_violation THEN
            outcomes := widgets.add_one_by_one(
                add_sns, add_names, add_ports1, add_ports2, add_ports3, taken);
        END;
        PERFORM set_config('lock_timeout', '25ms', true);
        IF outcomes IS NOT NULL THEN
            RETURN outcomes;
        END IF;
    ELSE
        INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
        SELECT given.* FROM unnest(add_sns, add_names, add_ports1, add_ports2, add_ports3)
            AS given (sn, name, port1, port2, port3)
        WHERE (given.sn IN (SELECT unnest(taken))) IS NOT TRUE
        ORDER BY given.sn COLLATE "C";
    END IF;
    IF taken IS NULL THEN
        RETURN array_fill('ok'::text, ARRAY[cardinality(add_sns)]);
    END IF;
    SELECT array_agg(CASE WHEN given.sn IN (SELECT unnest(taken)) THEN '23505' ELSE 'ok' END ORDER BY given.i)
    INTO outcomes
    FROM unnest(add_sns) WITH ORDINALITY AS given (sn, i);
    RETURN outcomes;
END
$$;

-- Decides and applies a batch. It is described in 0004 and 0006.
CREATE OR REPLACE FUNCTION widgets.decide_batch(
    add_sns text[], add_names text[], add_ports1 widgets.port_type[],
    add_ports2 widgets.port_type[], add_ports3 widgets.port_type[],
    remove_sns text[],
    pair_sns1 text[], pair_sns2 text[], pair_ports widgets.port_type[], pair_associates boolean[],
    lock_first boolean, add_by text[], remove_by text[], pair_by text[],
    OUT add_outcomes text[], OUT remove_outcomes text[], OUT pair_outcomes text[], OUT recorded boolean
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '25ms'
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    held text[];                    -- the widgets of the pairs that are locked, with lock_first
    places1 tid[];                  -- the rows of the first widgets of the pairs,
    versions1 xid[];
    slots1 integer[];               -- and the slot of each that changes
    places2 tid[];                  -- the same of the second widgets
    versions2 xid[];
    slots2 integer[];
    removed text[];                 -- the widgets to remove that exist and are locked,
    places tid[];                   -- their rows,
    peers1 text[];                  -- and their peers
    peers2 text[];
    peers3 text[];
    peers text[];                   -- all peers of removed widgets,
    held_peers text[];              -- those of them that are locked,
    peer_places tid[];              -- and their rows
    moved tid[];                    -- the new rows of removed widgets, without their peers
    changed bigint;
    freed_of integer[];
    freed_sns text[];
    freed_slots integer[];
BEGIN
    IF widgets.is_distributed() THEN
        recorded := false;
        SELECT decided.add_outcomes, decided.remove_outcomes, decided.pair_outcomes
        INTO add_outcomes, remove_outcomes, pair_outcomes
        FROM widgets.decide_distributed(add_sns, add_names, add_ports1, add_ports2, add_ports3, remove_sns,
            pair_sns1, pair_sns2, pair_ports, pair_associates, lock_first) decided;
        RETURN;
    END IF;
    IF add_sns <> '{}' THEN
        add_outcomes := widgets.add_batch(
            add_sns, add_names, add_ports1, add_ports2, add_ports3, lock_first);
    END IF;

    IF pair_sns1 <> '{}' THEN
        IF lock_first THEN
            SELECT array_agg(locked.serial_number) INTO held
            FROM (
                SELECT widget.serial_number
                FROM unnest(pair_sns1 || pair_sns2) AS named (sn)
                JOIN widgets.widgets widget ON widget.serial_number = named.sn
                FOR UPDATE OF widget SKIP LOCKED
            ) locked;
        END IF;
        -- Sorted once for all of these arrays, instead of once for each.
        SELECT
            array_agg(widgets.pair_outcome(sn1 IS NOT NULL, sn2 IS NOT NULL, linked1, free1, free2, associates)),
            array_agg(place1), array_agg(version1), array_agg(CASE WHEN associates THEN free1 ELSE linked1 END),
            array_agg(place2), array_agg(version2), array_agg(CASE WHEN associates THEN free2 ELSE linked2 END)
        INTO pair_outcomes, places1, versions1, slots1, places2, versions2, slots2
        FROM (
            SELECT pair.associates,
                one.serial_number AS sn1, one.ctid AS place1, one.xmin AS version1,
                widgets.linked_slot(one.port1, one.peer1, one.port2, one.peer2, one.port3, one.peer3,
                    pair.port, pair.sn2) AS linked1,
                widgets.free_slot(one.port1, one.peer1, one.port2, one.peer2, one.port3, one.peer3,
                    pair.port) AS free1,
                two.serial_number AS sn2, two.ctid AS place2, two.xmin AS version2,
                widgets.linked_slot(two.port1, two.peer1, two.port2, two.peer2, two.port3, two.peer3,
                    pair.port, pair.sn1) AS linked2,
                widgets.free_slot(two.port1, two.peer1, two.port2, two.peer2, two.port3, two.peer3,
                    pair.port) AS free2
            FROM unnest(pair_sns1, pair_sns2, pair_ports, pair_associates) WITH ORDINALITY
                AS pair (sn1, sn2, port, associates, i)
            LEFT JOIN widgets.widgets one ON one.serial_number = pair.sn1
            LEFT JOIN widgets.widgets two ON two.serial_number = pair.sn2
            ORDER BY pair.i
        ) read;
        IF lock_first THEN
            SELECT array_agg(
                CASE
                    WHEN place1 IS NOT NULL AND (sn1 IN (SELECT unnest(held))) IS NOT TRUE
                        OR place2 IS NOT NULL AND (sn2 IN (SELECT unnest(held))) IS NOT TRUE
                        THEN 'locked'
                    ELSE outcome
                END ORDER BY i)
            INTO pair_outcomes
            FROM unnest(pair_sns1, pair_sns2, pair_outcomes, places1, places2) WITH ORDINALITY
                AS pair (sn1, sn2, outcome, place1, place2, i);
        END IF;
        -- The place of a row and the transaction that wrote it identify one version of it.
        UPDATE widgets.widgets widget SET
            peer1 = CASE WHEN change.slot = 1 THEN change.peer_sn ELSE peer1 END,
            peer2 = CASE WHEN change.slot = 2 THEN change.peer_sn ELSE peer2 END,
            peer3 = CASE WHEN change.slot = 3 THEN change.peer_sn ELSE peer3 END
        FROM (
            SELECT pair.sn1 COLLATE "C" AS sn, place, version, slot,
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
        -- While they are locked, no other transaction can change their peers.
        SELECT array_agg(serial_number), array_agg(place),
            array_agg(peer1), array_agg(peer2), array_agg(peer3)
        INTO removed, places, peers1, peers2, peers3
        FROM (
            SELECT widget.serial_number, widget.ctid AS place,
                widget.peer1, widget.peer2, widget.peer3
            FROM unnest(remove_sns) AS given (sn)
            JOIN widgets.widgets widget ON widget.serial_number = given.sn
            FOR UPDATE OF widget SKIP LOCKED
        ) locked;
        peers := array_remove(peers1 || peers2 || peers3, NULL);
        IF peers <> '{}' THEN
            SELECT array_agg(serial_number), array_agg(place) INTO held_peers, peer_places
            FROM (
                SELECT widget.serial_number, widget.ctid AS place
                FROM (SELECT DISTINCT peer.sn FROM unnest(peers) AS peer (sn)) peer
                JOIN widgets.widgets widget ON widget.serial_number = peer.sn
                FOR UPDATE OF widget SKIP LOCKED
            ) locked;
            -- A widget whose peers could not all be locked is not removed.
            SELECT array_agg(sn), array_agg(place),
                array_agg(peer1), array_agg(peer2), array_agg(peer3)
            INTO removed, places, peers1, peers2, peers3
            FROM unnest(removed, places, peers1, peers2, peers3)
                AS given (sn, place, peer1, peer2, peer3)
            WHERE (peer1 IS NULL OR (peer1 IN (SELECT unnest(held_peers))) IS TRUE)
                AND (peer2 IS NULL OR (peer2 IN (SELECT unnest(held_peers))) IS TRUE)
                AND (peer3 IS NULL OR (peer3 IN (SELECT unnest(held_peers))) IS TRUE);
            peers := array_remove(peers1 || peers2 || peers3, NULL);
        END IF;
        IF peers <> '{}' THEN
            -- From here on, turning the feed on waits for this transaction.
            LOCK TABLE widgets.widgets IN ROW EXCLUSIVE MODE;
            IF widgets.keeps_changes() THEN
                SELECT * INTO freed_of, freed_sns, freed_slots FROM widgets.freed_slots(removed);
            END IF;
            -- Frees both halves of the removed widgets' associations. A peer may be associated with several of them,
            -- and may be one of them. Rows are found by their places, which cannot change while they are locked.
            WITH updated AS (
                UPDATE widgets.widgets widget SET
                    peer1 = CASE WHEN widget.peer1 IN (SELECT unnest(removed)) OR is_removed THEN NULL
                        ELSE widget.peer1 END,
                    peer2 = CASE WHEN widget.peer2 IN (SELECT unnest(removed)) OR is_removed THEN NULL
                        ELSE widget.peer2 END,
                    peer3 = CASE WHEN widget.peer3 IN (SELECT unnest(removed)) OR is_removed THEN NULL
                        ELSE widget.peer3 END
                FROM (
                    SELECT place, bool_or(is_removed) AS is_removed
                    FROM (
                        SELECT given.place, true AS is_removed
                        FROM unnest(places, peers1, peers2, peers3)
                            AS given (place, peer1, peer2, peer3)
                        WHERE num_nonnulls(given.peer1, given.peer2, given.peer3) > 0
                        UNION ALL
                        SELECT peer.place, false
                        FROM unnest(held_peers, peer_places) AS peer (sn, place)
                        WHERE (peer.sn IN (SELECT unnest(peers))) IS TRUE
                    ) named
                    GROUP BY place ORDER BY place
                ) change
                WHERE widget.ctid = change.place
                RETURNING widget.ctid AS place, change.is_removed
            )
            SELECT array_agg(place) FILTER (WHERE is_removed) INTO moved FROM updated;
        END IF;
        DELETE FROM widgets.widgets widget
        USING (
            SELECT unnest(moved) AS place
            UNION ALL
            SELECT given.place
            FROM unnest(places, peers1, peers2, peers3) AS given (place, peer1, peer2, peer3)
            WHERE num_nonnulls(given.peer1, given.peer2, given.peer3) = 0
        ) gone
        WHERE widget.ctid = gone.place
            AND num_nonnulls(widget.peer1, widget.peer2, widget.peer3) = 0;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> coalesce(cardinality(removed), 0) THEN
            PERFORM widgets.refuse_conflict();
        ELSIF changed = cardinality(remove_sns) THEN
            remove_outcomes := array_fill('ok'::text, ARRAY[cardinality(remove_sns)]);
        ELSE
            SELECT array_agg(
                CASE
                    WHEN (given.sn IN (SELECT unnest(removed))) IS TRUE THEN 'ok'
                    WHEN widget.serial_number IS NULL THEN 'WG001'
                    ELSE 'locked'
                END ORDER BY given.i)
            INTO remove_outcomes
            FROM unnest(remove_sns) WITH ORDINALITY AS given (sn, i)
            LEFT JOIN widgets.widgets widget ON widget.serial_number = given.sn;
        END IF;
    END IF;

    -- The batch was written before it is recorded, so turning the feed on waits for this transaction.
    recorded := widgets.keeps_changes()
        AND (array_position(add_outcomes, 'ok') IS NOT NULL
            OR array_position(pair_outcomes, 'ok') IS NOT NULL OR removed <> '{}');
    IF recorded THEN
        INSERT INTO widgets.changes (segment,
            add_sns, add_names, add_ports1, add_ports2, add_ports3, add_by,
            pair_sns1, pair_slots1, pair_sns2, pair_slots2, pair_ports, pair_associates, pair_by,
            remove_sns, remove_by, freed_of, freed_sns, freed_slots)
        SELECT (SELECT last_value FROM widgets.changes_segment), added.*, paired.*,
            removed, removals.by, freed_of, freed_sns, freed_slots
        FROM (
            SELECT array_agg(sn ORDER BY i), array_agg(name ORDER BY i), array_agg(port1 ORDER BY i),
                array_agg(port2 ORDER BY i), array_agg(port3 ORDER BY i),
                CASE WHEN add_by IS NOT NULL THEN array_agg(by ORDER BY i) END
            FROM unnest(add_sns, add_names, add_ports1, add_ports2, add_ports3, add_by, add_outcomes)
                WITH ORDINALITY AS given (sn, name, port1, port2, port3, by, outcome, i)
            WHERE outcome = 'ok'
        ) added
        CROSS JOIN (
            SELECT array_agg(sn1 ORDER BY i), array_agg(slot1 ORDER BY i), array_agg(sn2 ORDER BY i),
                array_agg(slot2 ORDER BY i), array_agg(port ORDER BY i), array_agg(associates ORDER BY i),
                CASE WHEN pair_by IS NOT NULL THEN array_agg(by ORDER BY i) END
            FROM unnest(pair_sns1, slots1, pair_sns2, slots2, pair_ports, pair_associates, pair_by, pair_outcomes)
                WITH ORDINALITY AS given (sn1, slot1, sn2, slot2, port, associates, by, outcome, i)
            WHERE outcome = 'ok'
        ) paired
        CROSS JOIN (
            SELECT CASE WHEN remove_by IS NOT NULL THEN array_agg(given.by ORDER BY gone.i) END AS by
            FROM unnest(removed) WITH ORDINALITY AS gone (sn, i)
            JOIN unnest(remove_sns, remove_by) AS given (sn, by) ON given.sn = gone.sn
        ) removals;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION widgets.lookup_widgets(widget_sns text[])
RETURNS TABLE (serial_number text, name text, ports text[], peers text[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    IF widgets.is_distributed() THEN
        RETURN QUERY SELECT * FROM widgets.lookup_distributed(widget_sns);
    ELSE
        RETURN QUERY SELECT widget.serial_number, widget.name,
            (ARRAY[port1, port2, port3]::text[])[:num_nonnulls(port1, port2, port3)],
            (ARRAY[peer1, peer2, peer3])[:num_nonnulls(port1, port2, port3)]
        FROM unnest(widget_sns) AS given (sn)
        JOIN widgets.widgets widget ON widget.serial_number = given.sn;
    END IF;
END
$$;
