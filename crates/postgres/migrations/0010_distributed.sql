-- Functions for a table that `widgets migrate --citus` has distributed over the nodes of a Citus cluster, by the serial
-- number. Nothing uses them before that. docs/decisions/0021 gives the reasons.
--
-- Each statement concerns the rows of one shard: the planner finds the shard by the array of their serial numbers. An
-- operation on several shards is several statements, in the order of the shards. The functions do not use the place of
-- a row (ctid), because the same place exists on every shard. Two shards share neither versions of rows nor a snapshot.
-- So a decision rests either on rows that are all locked at one moment, or on conditions that the write checks again.

-- Groups serial numbers by shard. Both the shards and the serial numbers of each are in order.
CREATE FUNCTION widgets.by_shard(sns text[]) RETURNS TABLE (shard bigint, sns text[])
LANGUAGE sql STABLE AS $$
    SELECT shard, array_agg(sn ORDER BY sn)
    FROM (
        SELECT DISTINCT sn COLLATE "C" AS sn, widgets.shard_of(sn) AS shard
        FROM unnest(by_shard.sns) AS given (sn) WHERE sn IS NOT NULL
    ) given
    GROUP BY shard ORDER BY shard
$$;

-- Returns which of these serial numbers exist.
CREATE FUNCTION widgets.present(sns text[]) RETURNS text[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    part record;
    part_sns text[];
    found text[] := '{}';
BEGIN
    FOR part IN SELECT * FROM widgets.by_shard(present.sns) LOOP
        SELECT array_agg(widget.serial_number) INTO part_sns
        FROM widgets.widgets widget WHERE widget.serial_number = ANY (part.sns);
        found := found || coalesce(part_sns, '{}');
    END LOOP;
    RETURN found;
END
$$;

-- add_batch (described in 0011) for a distributed table. Rows are copied to the nodes. If the key or a lock of another
-- node refuses one, the error has the code of an internal error, and the key's name contains the shard's number.
CREATE FUNCTION widgets.add_distributed(
    add_sns text[], add_names text[], add_ports1 widgets.port_type[],
    add_ports2 widgets.port_type[], add_ports3 widgets.port_type[], lock_first boolean
) RETURNS text[]
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    looks text := current_setting('widgets.look_first', true);
    looks_first CONSTANT boolean := looks ~ '^[1-9][0-9]?$';
    taken text[] := '{}';
    outcomes text[];
    given record;
    outcome text;
    locked integer := 0;
BEGIN
    IF lock_first OR looks_first THEN
        taken := widgets.present(add_sns);
        IF taken <> '{}' THEN
            PERFORM set_config('widgets.look_first', '64', false);
        ELSIF looks_first THEN
            PERFORM set_config('widgets.look_first', (looks::integer - 1)::text, false);
        END IF;
    END IF;
    BEGIN
        INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
        SELECT given.* FROM unnest(add_sns, add_names, add_ports1, add_ports2, add_ports3)
            AS given (sn, name, port1, port2, port3)
        WHERE given.sn <> ALL (taken)
        ORDER BY given.sn COLLATE "C";
        SELECT array_agg(CASE WHEN given.sn = ANY (taken) THEN '23505' ELSE 'ok' END ORDER BY given.i)
        INTO outcomes
        FROM unnest(add_sns) WITH ORDINALITY AS given (sn, i);
        RETURN outcomes;
    EXCEPTION WHEN unique_violation OR lock_not_available OR internal_error THEN
        -- A lost node is not caught here: its error has another code, and the commit would fail in any case.
        PERFORM set_config('widgets.look_first', '64', false);
    END;

    -- Added one by one, each widget gets its own outcome. Finding out that another transaction is adding the same serial
    -- number costs a wait, so that is done for at most twenty; the rest then count as locked.
    taken := widgets.present(add_sns);
    outcomes := '{}';
    SET LOCAL lock_timeout = '2ms';
    FOR given IN
        SELECT * FROM unnest(add_sns, add_names, add_ports1, add_ports2, add_ports3)
            WITH ORDINALITY AS given (sn, name, port1, port2, port3, i) ORDER BY i
    LOOP
        IF given.sn = ANY (taken) THEN
            outcome := '23505';
        ELSIF locked = 20 THEN
            outcome := 'locked';
        ELSE
            BEGIN
                INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
                VALUES (given.sn, given.name, given.port1, given.port2, given.port3);
                outcome := 'ok';
            EXCEPTION
                WHEN unique_violation THEN
                    outcome := '23505';
                WHEN lock_not_available THEN
                    outcome := 'locked';
                    locked := locked + 1;
            END;
        END IF;
        outcomes := outcomes || outcome;
    END LOOP;
    SET LOCAL lock_timeout = '25ms';
    RETURN outcomes;
END
$$;

-- Adds and removes associations by writes whose conditions repeat the rules. Returns false if a write changed fewer
-- rows than it should have: then a part of the batch was written, and the caller must undo it.
CREATE FUNCTION widgets.write_pairs(
    pair_sns1 text[], pair_sns2 text[], pair_ports widgets.port_type[], pair_associates boolean[]
) RETURNS boolean
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    part record;
    changed bigint;
BEGIN
    FOR part IN
        SELECT shard, array_agg(sn ORDER BY sn) AS sns, array_agg(peer ORDER BY sn) AS peers,
            array_agg(port ORDER BY sn) AS ports, array_agg(associates ORDER BY sn) AS associates
        FROM (
            SELECT sn COLLATE "C" AS sn, widgets.shard_of(sn) AS shard, peer, port, associates
            FROM unnest(pair_sns1 || pair_sns2, pair_sns2 || pair_sns1, pair_ports || pair_ports,
                pair_associates || pair_associates) AS half (sn, peer, port, associates)
        ) half
        GROUP BY shard ORDER BY shard
    LOOP
        UPDATE widgets.widgets widget SET
            peer1 = CASE WHEN 1 = widgets.slot_to_change(port1, peer1, port2, peer2, port3, peer3,
                half.port, half.peer, half.associates) THEN CASE WHEN half.associates THEN half.peer END
                ELSE peer1 END,
            peer2 = CASE WHEN 2 = widgets.slot_to_change(port1, peer1, port2, peer2, port3, peer3,
                half.port, half.peer, half.associates) THEN CASE WHEN half.associates THEN half.peer END
                ELSE peer2 END,
            peer3 = CASE WHEN 3 = widgets.slot_to_change(port1, peer1, port2, peer2, port3, peer3,
                half.port, half.peer, half.associates) THEN CASE WHEN half.associates THEN half.peer END
                ELSE peer3 END
        FROM unnest(part.sns, part.peers, part.ports, part.associates) AS half (sn, peer, port, associates)
        WHERE widget.serial_number = half.sn AND widget.serial_number = ANY (part.sns)
            AND widgets.slot_to_change(port1, peer1, port2, peer2, port3, peer3,
                half.port, half.peer, half.associates) IS NOT NULL;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> cardinality(part.sns) THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;

-- Rows that were locked and read on several shards, one array for each column.
CREATE TYPE widgets.locked_rows AS (
    sns text[], shards bigint[], ports1 text[], ports2 text[], ports3 text[],
    peers1 text[], peers2 text[], peers3 text[]
);

-- Locks those of these widgets that no other transaction has locked, and adds their rows to `known`.
CREATE FUNCTION widgets.lock_rows(sns text[], known widgets.locked_rows) RETURNS widgets.locked_rows
LANGUAGE plpgsql AS $$
DECLARE
    part record;
    found widgets.locked_rows;
BEGIN
    FOR part IN SELECT * FROM widgets.by_shard(lock_rows.sns) LOOP
        SELECT array_agg(serial_number), array_agg(port1), array_agg(port2), array_agg(port3),
            array_agg(peer1), array_agg(peer2), array_agg(peer3)
        INTO found.sns, found.ports1, found.ports2, found.ports3, found.peers1, found.peers2, found.peers3
        FROM (
            SELECT widget.serial_number, widget.port1::text, widget.port2::text, widget.port3::text,
                widget.peer1, widget.peer2, widget.peer3
            FROM widgets.widgets widget
            WHERE widget.serial_number = ANY (part.sns)
            ORDER BY widget.serial_number FOR UPDATE SKIP LOCKED
        ) locked;
        IF found.sns IS NOT NULL THEN
            known.sns := known.sns || found.sns;
            known.shards := known.shards || array_fill(part.shard, ARRAY[cardinality(found.sns)]);
            known.ports1 := known.ports1 || found.ports1;
            known.ports2 := known.ports2 || found.ports2;
            known.ports3 := known.ports3 || found.ports3;
            known.peers1 := known.peers1 || found.peers1;
            known.peers2 := known.peers2 || found.peers2;
            known.peers3 := known.peers3 || found.peers3;
        END IF;
    END LOOP;
    RETURN known;
END
$$;

-- Decides operations on pairs, and removals, on rows that are all locked at one moment, which is the moment of every
-- decision. Operations on rows that other transactions have locked are skipped, and their outcome is 'locked'. If a row
-- could not be locked and a later read does not find it either, it does not exist at the moment of that read.
CREATE FUNCTION widgets.change_locked(
    remove_sns text[],
    pair_sns1 text[], pair_sns2 text[], pair_ports widgets.port_type[], pair_associates boolean[],
    OUT remove_outcomes text[], OUT pair_outcomes text[]
)
-- A generic plan does not know how long an array is. With nested loops, a join of two arrays would compare each element
-- of one with each element of the other. The estimated costs of such plans would also make PostgreSQL compile each of
-- them (JIT).
LANGUAGE plpgsql SET enable_nestloop = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    ours widgets.locked_rows := ROW('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}');
    held text[];                    -- widgets that exist but are locked by other transactions
    removed text[];                 -- widgets that are removed
    slots1 integer[];
    slots2 integer[];
    part record;
    changed bigint;
BEGIN
    ours := widgets.lock_rows(remove_sns || pair_sns1 || pair_sns2, ours);
    held := widgets.present(ARRAY(
        SELECT named.sn FROM unnest(remove_sns || pair_sns1 || pair_sns2) AS named (sn)
        WHERE (named.sn IN (SELECT unnest(ours.sns))) IS NOT TRUE));

    IF remove_sns <> '{}' THEN
        -- The peers of removed widgets are locked too. A widget whose peers could not all be locked is not removed.
        ours := widgets.lock_rows(ARRAY(
            SELECT peer.sn
            FROM unnest(ours.sns, ours.peers1, ours.peers2, ours.peers3) AS row (sn, peer1, peer2, peer3)
            CROSS JOIN LATERAL unnest(ARRAY[peer1, peer2, peer3]) AS peer (sn)
            WHERE row.sn IN (SELECT unnest(remove_sns)) AND peer.sn IS NOT NULL
                AND (peer.sn IN (SELECT unnest(ours.sns))) IS NOT TRUE), ours);
        SELECT coalesce(array_agg(row.sn), '{}') INTO removed
        FROM unnest(ours.sns, ours.peers1, ours.peers2, ours.peers3) AS row (sn, peer1, peer2, peer3)
        WHERE row.sn IN (SELECT unnest(remove_sns))
            AND (peer1 IS NULL OR (peer1 IN (SELECT unnest(ours.sns))) IS TRUE)
            AND (peer2 IS NULL OR (peer2 IN (SELECT unnest(ours.sns))) IS TRUE)
            AND (peer3 IS NULL OR (peer3 IN (SELECT unnest(ours.sns))) IS TRUE);
        SELECT array_agg(
            CASE
                WHEN (given.sn IN (SELECT unnest(removed))) IS TRUE THEN 'ok'
                WHEN (given.sn IN (SELECT unnest(ours.sns || held))) IS TRUE THEN 'locked'
                ELSE 'WG001'
            END ORDER BY given.i)
        INTO remove_outcomes
        FROM unnest(remove_sns) WITH ORDINALITY AS given (sn, i);
    END IF;

    IF pair_sns1 <> '{}' THEN
        SELECT
            array_agg(
                CASE
                    WHEN (pair.sn1 IN (SELECT unnest(held))) IS TRUE
                        OR (pair.sn2 IN (SELECT unnest(held))) IS TRUE THEN 'locked'
                    ELSE widgets.pair_outcome(one.sn IS NOT NULL, two.sn IS NOT NULL, linked1, free1, free2,
                        associates)
                END ORDER BY i),
            array_agg(CASE WHEN associates THEN free1 ELSE linked1 END ORDER BY i),
            array_agg(CASE WHEN associates THEN free2 ELSE linked2 END ORDER BY i)
        INTO pair_outcomes, slots1, slots2
        FROM unnest(pair_sns1, pair_sns2, pair_ports, pair_associates) WITH ORDINALITY
            AS pair (sn1, sn2, port, associates, i)
        LEFT JOIN unnest(ours.sns, ours.ports1::widgets.port_type[], ours.ports2::widgets.port_type[],
                ours.ports3::widgets.port_type[], ours.peers1, ours.peers2, ours.peers3)
            AS one (sn, port1, port2, port3, peer1, peer2, peer3) ON one.sn = pair.sn1
        LEFT JOIN unnest(ours.sns, ours.ports1::widgets.port_type[], ours.ports2::widgets.port_type[],
                ours.ports3::widgets.port_type[], ours.peers1, ours.peers2, ours.peers3)
            AS two (sn, port1, port2, port3, peer1, peer2, peer3) ON two.sn = pair.sn2
        CROSS JOIN LATERAL (SELECT
            widgets.linked_slot(one.port1, one.peer1, one.port2, one.peer2, one.port3, one.peer3,
                pair.port, pair.sn2) AS linked1,
            widgets.linked_slot(two.port1, two.peer1, two.port2, two.peer2, two.port3, two.peer3,
                pair.port, pair.sn1) AS linked2,
            widgets.free_slot(one.port1, one.peer1, one.port2, one.peer2, one.port3, one.peer3,
                pair.port) AS free1,
            widgets.free_slot(two.port1, two.peer1, two.port2, two.peer2, two.port3, two.peer3,
                pair.port) AS free2) rule;
    END IF;

    -- Both halves of each association that is added or removed are written, also in rows that are deleted next, because
    -- a row is deleted only without peers. No widget occurs twice in a batch, so no slot does.
    FOR part IN
        SELECT shard, array_agg(sn ORDER BY sn) AS sns, array_agg(peer1 ORDER BY sn) AS peers1,
            array_agg(peer2 ORDER BY sn) AS peers2, array_agg(peer3 ORDER BY sn) AS peers3
        FROM (
            SELECT row.shard, row.sn COLLATE "C" AS sn,
                CASE WHEN bool_or(slot = 1) THEN min(peer) FILTER (WHERE slot = 1) ELSE row.peer1 END AS peer1,
                CASE WHEN bool_or(slot = 2) THEN min(peer) FILTER (WHERE slot = 2) ELSE row.peer2 END AS peer2,
                CASE WHEN bool_or(slot = 3) THEN min(peer) FILTER (WHERE slot = 3) ELSE row.peer3 END AS peer3
            FROM unnest(ours.sns, ours.shards, ours.peers1, ours.peers2, ours.peers3)
                AS row (sn, shard, peer1, peer2, peer3)
            JOIN (
                SELECT sn1 AS sn, slot, CASE WHEN associates THEN sn2 END AS peer
                FROM unnest(pair_sns1 || pair_sns2, pair_sns2 || pair_sns1, pair_associates || pair_associates,
                    pair_outcomes || pair_outcomes, slots1 || slots2) AS pair (sn1, sn2, associates, outcome, slot)
                WHERE outcome = 'ok'
                UNION ALL
                SELECT row.sn, slot.slot, NULL
                FROM unnest(ours.sns, ours.peers1, ours.peers2, ours.peers3) AS row (sn, peer1, peer2, peer3)
                CROSS JOIN LATERAL (VALUES (1, peer1), (2, peer2), (3, peer3)) AS slot (slot, peer)
                WHERE slot.peer IN (SELECT unnest(removed))
                    OR slot.peer IS NOT NULL AND row.sn IN (SELECT unnest(removed))
            ) change USING (sn)
            GROUP BY row.shard, row.sn, row.peer1, row.peer2, row.peer3
        ) changed
        GROUP BY shard ORDER BY shard
    LOOP
        UPDATE widgets.widgets widget SET peer1 = change.peer1, peer2 = change.peer2, peer3 = change.peer3
        FROM unnest(part.sns, part.peers1, part.peers2, part.peers3) AS change (sn, peer1, peer2, peer3)
        WHERE widget.serial_number = change.sn AND widget.serial_number = ANY (part.sns);
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> cardinality(part.sns) THEN
            PERFORM widgets.refuse_conflict();
        END IF;
    END LOOP;
    FOR part IN SELECT * FROM widgets.by_shard(removed) LOOP
        DELETE FROM widgets.widgets WHERE serial_number = ANY (part.sns);
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> cardinality(part.sns) THEN
            PERFORM widgets.refuse_conflict();
        END IF;
    END LOOP;
END
$$;

-- Settings for a transaction over several nodes. Each node gets one connection, and so one prepared transaction,
-- instead of one for each shard; and SET LOCAL applies on the nodes as well. They are not in the functions' own SET
-- clauses, because only a superuser may set parameters of an extension that is not installed.
CREATE FUNCTION widgets.begin_distributed() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('citus.multi_shard_modify_mode', 'sequential', true),
        set_config('citus.propagate_set_commands', 'local', true);
END
$$;

-- decide_batch for a distributed table. Like additions in add_batch, operations on pairs are written without looking
-- first, unless some were refused lately. Removals and refusals need locks.
CREATE FUNCTION widgets.decide_distributed(
    add_sns text[], add_names text[], add_ports1 widgets.port_type[],
    add_ports2 widgets.port_type[], add_ports3 widgets.port_type[],
    remove_sns text[],
    pair_sns1 text[], pair_sns2 text[], pair_ports widgets.port_type[], pair_associates boolean[],
    lock_first boolean,
    OUT add_outcomes text[], OUT remove_outcomes text[], OUT pair_outcomes text[]
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = auto
SET enable_hashjoin = on SET enable_mergejoin = on
SET jit = off
AS $$
DECLARE
    looks text := current_setting('widgets.lock_first', true);
    looks_first CONSTANT boolean := looks ~ '^[1-9][0-9]?$';
    is_written boolean;
BEGIN
    PERFORM widgets.begin_distributed();
    -- A separate statement, so that it applies on the nodes as well.
    SET LOCAL lock_timeout = '25ms';
    IF add_sns <> '{}' THEN
        add_outcomes := widgets.add_distributed(add_sns, add_names, add_ports1, add_ports2, add_ports3, lock_first);
    END IF;
    IF pair_sns1 <> '{}' AND NOT lock_first AND looks_first IS NOT TRUE THEN
        BEGIN
            is_written := widgets.write_pairs(pair_sns1, pair_sns2, pair_ports, pair_associates);
            IF NOT is_written THEN
                PERFORM widgets.refuse_conflict();
            END IF;
            pair_outcomes := array_fill('ok'::text, ARRAY[cardinality(pair_sns1)]);
        EXCEPTION WHEN serialization_failure THEN
            is_written := false;
        END;
    END IF;
    IF is_written AND remove_sns = '{}' THEN
        NULL;
    ELSIF is_written OR pair_sns1 = '{}' THEN
        SELECT locked.remove_outcomes INTO remove_outcomes
        FROM widgets.change_locked(remove_sns, '{}', '{}', '{}', '{}') locked;
    ELSE
        SELECT locked.remove_outcomes, locked.pair_outcomes INTO remove_outcomes, pair_outcomes
        FROM widgets.change_locked(remove_sns, pair_sns1, pair_sns2, pair_ports, pair_associates) locked;
        IF EXISTS (SELECT FROM unnest(pair_outcomes) AS outcome WHERE outcome NOT IN ('ok', 'locked')) THEN
            PERFORM set_config('widgets.lock_first', '64', false);
        ELSIF looks_first THEN
            PERFORM set_config('widgets.lock_first', (looks::integer - 1)::text, false);
        END IF;
    END IF;
END
$$;

-- Single operations, for the functions of the API. As on one server, an operation waits for transactions that have
-- locked its widgets: it does so in its first write. If another transaction comes between that write and the decision,
-- the operation fails with 40001.
CREATE FUNCTION widgets.add_one_distributed(widget_sn text, widget_name text, slots text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
    VALUES (widget_sn, widget_name, slots[1]::widgets.port_type, slots[2]::widgets.port_type,
        slots[3]::widgets.port_type);
EXCEPTION WHEN unique_violation THEN
    -- The same message as on one server: without the number of the shard.
    RAISE unique_violation USING
        MESSAGE = 'duplicate key value violates unique constraint "widgets_serial_number_key"',
        DETAIL = format('Key (serial_number)=(%s) already exists.', widget_sn);
END
$$;

CREATE FUNCTION widgets.remove_one_distributed(widget_sn text) RETURNS void
LANGUAGE plpgsql
SET plan_cache_mode = auto AS $$
DECLARE
    outcome text;
BEGIN
    PERFORM widgets.begin_distributed();
    -- A write that changes nothing, to wait for a transaction that has locked the widget.
    UPDATE widgets.widgets SET name = name WHERE serial_number = widget_sn;
    SELECT remove_outcomes[1] INTO outcome
    FROM widgets.change_locked(ARRAY[widget_sn], '{}', '{}', '{}', '{}');
    IF outcome = 'WG001' THEN
        PERFORM widgets.refuse_missing(widget_sn);
    ELSIF outcome = 'locked' THEN
        PERFORM widgets.refuse_conflict();
    END IF;
END
$$;

CREATE FUNCTION widgets.change_one_distributed(
    widget1_sn text, widget2_sn text, port widgets.port_type, associates boolean
) RETURNS void
LANGUAGE plpgsql
SET plan_cache_mode = auto AS $$
#variable_conflict use_column
DECLARE
    outcome text := 'ok';
BEGIN
    PERFORM widgets.check_pair(widget1_sn, widget2_sn, port);
    PERFORM widgets.begin_distributed();
    BEGIN
        IF NOT widgets.write_pairs(ARRAY[widget1_sn], ARRAY[widget2_sn], ARRAY[port], ARRAY[associates]) THEN
            PERFORM widgets.refuse_conflict();
        END IF;
    EXCEPTION WHEN serialization_failure THEN
        SELECT pair_outcomes[1] INTO outcome FROM widgets.change_locked(
            '{}', ARRAY[widget1_sn], ARRAY[widget2_sn], ARRAY[port], ARRAY[associates]);
    END;
    IF outcome = 'locked' THEN
        PERFORM widgets.refuse_conflict();
    ELSIF outcome <> 'ok' THEN
        RAISE EXCEPTION USING ERRCODE = left(outcome, 5),
            MESSAGE = widgets.pair_message(outcome, widget1_sn, widget2_sn, port);
    END IF;
END
$$;

-- lookup_widgets for a distributed table.
CREATE FUNCTION widgets.lookup_distributed(widget_sns text[])
RETURNS TABLE (serial_number text, name text, ports text[], peers text[])
LANGUAGE plpgsql STABLE SET plan_cache_mode = auto SET enable_hashjoin = on AS $$
#variable_conflict use_column
DECLARE
    part record;
BEGIN
    FOR part IN SELECT * FROM widgets.by_shard(widget_sns) LOOP
        RETURN QUERY SELECT widget.serial_number, widget.name,
            (ARRAY[port1, port2, port3]::text[])[:num_nonnulls(port1, port2, port3)],
            (ARRAY[peer1, peer2, peer3])[:num_nonnulls(port1, port2, port3)]
        FROM widgets.widgets widget WHERE widget.serial_number = ANY (part.sns);
    END LOOP;
END
$$;

-- Checks that every half of an association has its other half, in one pass over the shards and without moving rows. Each
-- association adds one number with both signs, so the sum is 0 if none is incomplete and no operation runs meanwhile.
CREATE FUNCTION widgets.halves_balance() RETURNS numeric LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    balance numeric;
BEGIN
    SELECT coalesce(sum(
        CASE WHEN peer1 IS NULL THEN 0 ELSE widgets.signed_half(serial_number, port1, peer1) END
        + CASE WHEN peer2 IS NULL THEN 0 ELSE widgets.signed_half(serial_number, port2, peer2) END
        + CASE WHEN peer3 IS NULL THEN 0 ELSE widgets.signed_half(serial_number, port3, peer3) END), 0)
    INTO balance FROM widgets.widgets;
    RETURN balance;
END
$$;

CREATE FUNCTION widgets.signed_half(serial_number text, port widgets.port_type, peer text) RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$
    SELECT sign * hashtextextended(
        concat_ws(E'\n', least(serial_number, peer), greatest(serial_number, peer), port::text), 0)
    FROM (SELECT CASE WHEN serial_number < peer THEN 1 ELSE -1 END::numeric AS sign) half
$$;
