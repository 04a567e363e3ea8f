-- The table distributed over the nodes of a Citus cluster, by the serial number: `widgets migrate --citus`
-- does that, and nothing of it is there before. docs/decisions/0021 argues it.
--
-- A statement names the rows of one shard, which an array of their serial numbers tells the planner; what
-- concerns several shards is several statements, in the order of the shards. No place of a row (ctid) is
-- used: it would be found on every shard. No version of a row, and no snapshot, is common to two shards: a
-- decision rests on rows that are locked, all at one moment, or on what a write checks once more.

-- Whether the table is distributed. Distributing it replaces these two.
CREATE FUNCTION widgets.is_distributed() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT false';
CREATE FUNCTION widgets.shard_of(serial_number text) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT 0::bigint';

-- Serial numbers by shard, each in its order, the shards in theirs.
CREATE FUNCTION widgets.by_shard(sns text[]) RETURNS TABLE (shard bigint, sns text[])
LANGUAGE sql STABLE AS $$
    SELECT shard, array_agg(sn ORDER BY sn)
    FROM (
        SELECT DISTINCT sn COLLATE "C" AS sn, widgets.shard_of(sn) AS shard
        FROM unnest(by_shard.sns) AS given (sn) WHERE sn IS NOT NULL
    ) given
    GROUP BY shard ORDER BY shard
$$;

-- Which of these are there.
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

-- add_batch where the table is distributed: its description is there. Rows are copied to the nodes, and what
-- another node's key or lock refuses then has the code of an internal error, and the shard's number in the
-- key's name.
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
        -- A node that is gone has another code, and the commit would fail if this went on.
        PERFORM set_config('widgets.look_first', '64', false);
    END;

    -- One by one each has a code of its own. To know that another transaction is about to add the same takes
    -- a wait: twenty are found out.
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

-- Associates and parts pairs by writes that say the rules once more. False where one of them fell short:
-- something of it was written then, and has to be undone.
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

-- The slot that one half of an operation on two widgets changes, null where the rules refuse it: the first
-- free one, unless the two are associated; of a removal the one that names the other.
CREATE FUNCTION widgets.slot_to_change(
    port1 widgets.port_type, peer1 text, port2 widgets.port_type, peer2 text,
    port3 widgets.port_type, peer3 text, port widgets.port_type, peer_sn text, associates boolean
) RETURNS integer
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN NOT associates THEN
            widgets.linked_slot(port1, peer1, port2, peer2, port3, peer3, port, peer_sn)
        WHEN widgets.linked_slot(port1, peer1, port2, peer2, port3, peer3, port, peer_sn) IS NULL THEN
            widgets.free_slot(port1, peer1, port2, peer2, port3, peer3, port)
    END
$$;

-- Rows as a locked read of several shards gave them, one array for each column.
CREATE TYPE widgets.locked_rows AS (
    sns text[], shards bigint[], ports1 text[], ports2 text[], ports3 text[],
    peers1 text[], peers2 text[], peers3 text[]
);

-- Locks those of these that nobody else holds, and adds what they are to `known`.
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

-- Decides pairs and removals on rows that are locked, all at one moment, which is the moment of every
-- decision; what others hold is passed over, and is 'locked'. A row that is neither locked nor seen by a read
-- after that is missing at the moment of that read.
CREATE FUNCTION widgets.change_locked(
    remove_sns text[],
    pair_sns1 text[], pair_sns2 text[], pair_ports widgets.port_type[], pair_associates boolean[],
    OUT remove_outcomes text[], OUT pair_outcomes text[]
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    ours widgets.locked_rows := ROW('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}');
    held text[];                    -- those that are there and others have locked
    removed text[];                 -- those that go
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
        -- The peers of what goes. One whose peers are not all locked stays.
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

    -- Both halves of what is made or unmade, in rows that go as well: widgets go without peers. No widget is
    -- named twice, so that no slot is.
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

-- What holds for a transaction over several nodes: one connection, and so one prepared transaction, for each node,
-- where each shard would have its own; and that a SET LOCAL holds on the nodes as well. Not in the functions' own
-- settings, as those of an extension that is not there may be made by nobody but a superuser.
CREATE FUNCTION widgets.begin_distributed() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('citus.multi_shard_modify_mode', 'sequential', true),
        set_config('citus.propagate_set_commands', 'local', true);
END
$$;

-- decide_batch where the table is distributed. Pairs are written first, unless some were refused of late, as
-- add_batch does with additions; removals, and what is refused, need the locks.
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
    -- As a statement of its own it holds on the nodes as well.
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

-- Decides and applies a batch, as before where the table is in one place: its description is in 0004 and 0006.
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
    held text[];                    -- the pairs' widgets, if they are locked first
    places1 tid[];                  -- the rows of the pairs' widgets that change,
    versions1 xid[];
    slots1 integer[];               -- and which slot of each
    places2 tid[];
    versions2 xid[];
    slots2 integer[];
    removed text[];                 -- those that exist and are locked,
    places tid[];                   -- their rows,
    peers1 text[];                  -- and their peers
    peers2 text[];
    peers3 text[];
    peers text[];                   -- all of these,
    held_peers text[];              -- those that are locked,
    peer_places tid[];              -- and their rows
    moved tid[];                    -- the rows of removed ones that have lost their peers
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
        SELECT
            array_agg(widgets.pair_outcome(sn1 IS NOT NULL, sn2 IS NOT NULL, linked1, free1, free2, associates)
                ORDER BY i),
            array_agg(place1 ORDER BY i), array_agg(version1 ORDER BY i),
            array_agg(CASE WHEN associates THEN free1 ELSE linked1 END ORDER BY i),
            array_agg(place2 ORDER BY i), array_agg(version2 ORDER BY i),
            array_agg(CASE WHEN associates THEN free2 ELSE linked2 END ORDER BY i)
        INTO pair_outcomes, places1, versions1, slots1, places2, versions2, slots2
        FROM (
            SELECT pair.i, pair.associates,
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
        -- A place and the transaction that wrote there are one version of a row.
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
        -- Once they are locked nobody else gives them peers, or takes some away.
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
            -- One whose peers are not all locked stays.
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
            IF widgets.keeps_changes() THEN
                SELECT * INTO freed_of, freed_sns, freed_slots FROM widgets.freed_slots(removed);
            END IF;
            -- Frees both halves of what joins them to others. Such another one may be named by several,
            -- and it may be one of them. Rows are found by their places, which the locks keep.
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
                        WHERE peer.sn IN (SELECT unnest(peers))
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

    -- What is recorded last was written before: whoever turns the feed on waits for that.
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

-- One operation alone, for the functions of the API. It waits for whoever holds its widgets, as they do where
-- the table is in one place, in the write that comes first; whoever comes between that and a decision makes
-- it fail with 40001.
CREATE FUNCTION widgets.add_one_distributed(widget_sn text, widget_name text, slots text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
    VALUES (widget_sn, widget_name, slots[1]::widgets.port_type, slots[2]::widgets.port_type,
        slots[3]::widgets.port_type);
EXCEPTION WHEN unique_violation THEN
    -- Without the number of the shard.
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
    -- A write that changes nothing waits for whoever holds it.
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
        PERFORM widgets.refuse_pair(outcome, widget1_sn, widget2_sn, port);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION widgets.add_widget(widget_sn text, widget_name text, slots text[])
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF widget_sn IS NULL THEN
        PERFORM widgets.refuse_null('widget_sn');
    ELSIF widget_name IS NULL THEN
        PERFORM widgets.refuse_null('widget_name');
    ELSIF slots IS NULL THEN
        PERFORM widgets.refuse_null('slots');
    ELSIF array_ndims(slots) > 1 THEN
        RAISE EXCEPTION 'argument "slots" must be an array of port types' USING ERRCODE = '22P02';
    ELSIF NOT slots <@ '{P,Q,R}'::text[] THEN
        -- The first one, as the other stores name it.
        DECLARE
            wrong text;
        BEGIN
            SELECT given.slot INTO wrong FROM unnest(slots) WITH ORDINALITY AS given (slot, i)
            WHERE given.slot IS NULL OR given.slot NOT IN ('P', 'Q', 'R') ORDER BY i LIMIT 1;
            IF wrong IS NULL THEN
                PERFORM widgets.refuse_null('slots');
            END IF;
            RAISE EXCEPTION 'invalid input value for enum widgets.port_type: "%"', wrong
                USING ERRCODE = '22P02';
        END;
    ELSIF cardinality(slots) > 3 THEN
        RAISE EXCEPTION 'a widget has at most 3 slots, % were given', cardinality(slots)
            USING ERRCODE = 'WG006';
    ELSIF widget_sn = '' OR octet_length(widget_sn) > 255 THEN
        PERFORM widgets.check_serial_number('widget_sn', widget_sn);
    ELSIF octet_length(widget_name) > 1024 THEN
        RAISE EXCEPTION 'widget_name must be at most 1024 bytes long, % were given',
            octet_length(widget_name) USING ERRCODE = 'WG007';
    END IF;

    IF array_lower(slots, 1) <> 1 THEN
        slots := ARRAY(SELECT given.slot FROM unnest(slots) WITH ORDINALITY AS given (slot, i)
            ORDER BY i);
    END IF;
    IF widgets.is_distributed() THEN
        PERFORM widgets.add_one_distributed(widget_sn, widget_name, slots);
        RETURN;
    END IF;
    -- The primary key refuses a serial number that is taken, in the words of the specification.
    INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
    VALUES (widget_sn, widget_name, slots[1]::widgets.port_type, slots[2]::widgets.port_type,
        slots[3]::widgets.port_type);
    IF widgets.keeps_changes() THEN
        INSERT INTO widgets.changes (segment, add_sns, add_names, add_ports1, add_ports2, add_ports3, add_by)
        SELECT last_value, ARRAY[widget_sn], ARRAY[widget_name], ARRAY[slots[1]::widgets.port_type],
            ARRAY[slots[2]::widgets.port_type], ARRAY[slots[3]::widgets.port_type], ARRAY[widgets.caller()]
        FROM widgets.changes_segment;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION widgets.remove_widget(widget_sn text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    known_peers text[];
    places tid[];
    peers bigint;
    freed bigint;
    freed_of integer[];
    freed_sns text[];
    freed_slots integer[];
BEGIN
    IF widget_sn IS NULL THEN
        PERFORM widgets.refuse_null('widget_sn');
    ELSIF widget_sn = '' OR octet_length(widget_sn) > 255 THEN
        PERFORM widgets.check_serial_number('widget_sn', widget_sn);
    END IF;

    IF widgets.is_distributed() THEN
        PERFORM widgets.remove_one_distributed(widget_sn);
        RETURN;
    END IF;
    -- Its peers are locked with it, in order; so they are read first. One that it got meanwhile is
    -- not locked, and may not be locked now, out of order: then it names more than name it.
    SELECT ARRAY[widget.peer1, widget.peer2, widget.peer3] INTO known_peers
    FROM widgets.widgets widget WHERE widget.serial_number = remove_widget.widget_sn;
    IF NOT FOUND THEN
        PERFORM widgets.refuse_missing(widget_sn);
    END IF;
    SELECT
        array_agg(place),
        sum(num_nonnulls(peer1, peer2, peer3))
            FILTER (WHERE serial_number = remove_widget.widget_sn),
        count(*) FILTER (WHERE peer1 = remove_widget.widget_sn)
            + count(*) FILTER (WHERE peer2 = remove_widget.widget_sn)
            + count(*) FILTER (WHERE peer3 = remove_widget.widget_sn)
    INTO places, peers, freed
    FROM (
        SELECT widget.serial_number, widget.ctid AS place, widget.peer1, widget.peer2, widget.peer3
        FROM widgets.widgets widget
        WHERE widget.serial_number = ANY (known_peers || remove_widget.widget_sn)
        ORDER BY widget.serial_number
        FOR UPDATE
    ) locked;
    IF peers IS NULL THEN
        PERFORM widgets.refuse_missing(widget_sn);
    ELSIF peers <> freed THEN
        PERFORM widgets.refuse_conflict();
    ELSIF peers > 0 THEN
        IF widgets.keeps_changes() THEN
            SELECT * INTO freed_of, freed_sns, freed_slots FROM widgets.freed_slots(ARRAY[widget_sn]);
        END IF;
        -- By their places: a peer that was removed and added again while this call waited has the
        -- same serial number, and is not locked.
        UPDATE widgets.widgets widget SET
            peer1 = CASE WHEN serial_number <> remove_widget.widget_sn
                AND peer1 <> remove_widget.widget_sn THEN peer1 END,
            peer2 = CASE WHEN serial_number <> remove_widget.widget_sn
                AND peer2 <> remove_widget.widget_sn THEN peer2 END,
            peer3 = CASE WHEN serial_number <> remove_widget.widget_sn
                AND peer3 <> remove_widget.widget_sn THEN peer3 END
        WHERE widget.ctid = ANY (places);
    END IF;
    DELETE FROM widgets.widgets WHERE serial_number = remove_widget.widget_sn;
    IF widgets.keeps_changes() THEN
        INSERT INTO widgets.changes (segment, remove_sns, remove_by, freed_of, freed_sns, freed_slots)
        SELECT last_value, ARRAY[widget_sn], ARRAY[widgets.caller()], freed_of, freed_sns, freed_slots
        FROM widgets.changes_segment;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION widgets.associate_widgets(
    widget1_sn text, widget2_sn text, port widgets.port_type
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF widgets.is_distributed() THEN
        PERFORM widgets.change_one_distributed(widget1_sn, widget2_sn, port, true);
    ELSE
        PERFORM widgets.change_pair(widget1_sn, widget2_sn, port, true);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION widgets.remove_association(
    widget1_sn text, widget2_sn text, port widgets.port_type
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF widgets.is_distributed() THEN
        PERFORM widgets.change_one_distributed(widget1_sn, widget2_sn, port, false);
    ELSE
        PERFORM widgets.change_pair(widget1_sn, widget2_sn, port, false);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION widgets.lookup_widget(widget_sn text)
RETURNS TABLE (serial_number text, name text, slots json)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT widget.serial_number, widget.name, coalesce(
        (SELECT json_agg(json_build_object('port', slot.port, 'peer', slot.peer_sn) ORDER BY slot.ordinal)
         FROM (VALUES (1, port1, peer1), (2, port2, peer2), (3, port3, peer3)) AS slot (ordinal, port, peer_sn)
         WHERE slot.port IS NOT NULL), '[]')
    FROM widgets.widgets widget WHERE widget.serial_number = lookup_widget.widget_sn;
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

-- Whether every half has its other half, where nobody writes: in one pass over the shards, without moving
-- rows. Each association counts once with each sign; 0 says that all is whole.
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

-- What the statistics of each shard's last ANALYZE tell, by shard.
CREATE FUNCTION widgets.shard_statistics() RETURNS TABLE (
    rows double precision, slots double precision, halves double precision,
    p double precision, q double precision, r double precision
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT (told->>'rows')::double precision, (told->>'slots')::double precision,
        (told->>'halves')::double precision, coalesce((told->'free'->>'P')::double precision, 0),
        coalesce((told->'free'->>'Q')::double precision, 0), coalesce((told->'free'->>'R')::double precision, 0)
    FROM (
        SELECT result::jsonb AS told FROM run_command_on_shards('widgets.widgets', $told$
            SELECT jsonb_build_object('rows', greatest(shard.reltuples, 0),
                'slots', (SELECT coalesce(sum(1 - null_frac), 0) FROM pg_stats stats
                    WHERE stats.schemaname = 'widgets' AND stats.tablename = shard.relname AND attname LIKE 'port_'),
                'halves', (SELECT coalesce(sum(1 - null_frac), 0) FROM pg_stats stats
                    WHERE stats.schemaname = 'widgets' AND stats.tablename = shard.relname AND attname LIKE 'peer_'),
                'free', (SELECT jsonb_object_agg(port, share) FROM (
                    SELECT stats.most_common_vals[place][1] AS port, sum(stats.most_common_freqs[place]) AS share
                    FROM pg_stats_ext stats
                    CROSS JOIN LATERAL generate_subscripts(stats.most_common_freqs, 1) AS list (place)
                    WHERE stats.schemaname = 'widgets' AND stats.tablename = shard.relname
                        AND stats.most_common_vals[place][2] = 't' AND stats.most_common_vals[place][1] IS NOT NULL
                    GROUP BY 1) pair))
            FROM pg_class shard WHERE shard.oid = '%s'::regclass$told$)
        WHERE success
    ) shards;
END
$$;

CREATE OR REPLACE FUNCTION widgets.estimated_counts(
    OUT widgets double precision, OUT free_slots double precision, OUT associations double precision
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF widgets.is_distributed() THEN
        SELECT coalesce(sum(rows), 0), coalesce(sum(rows * greatest(slots - halves, 0)), 0),
            coalesce(sum(rows * halves / 2), 0)
        INTO widgets, free_slots, associations FROM widgets.shard_statistics();
        RETURN;
    END IF;
    SELECT rows, rows * greatest(slots - halves, 0), rows * halves / 2
    INTO widgets, free_slots, associations
    FROM (
        SELECT greatest(reltuples, 0) AS rows FROM pg_class
        WHERE oid = 'widgets.widgets'::regclass
    ) counted
    CROSS JOIN (
        -- Of each column the share of widgets that have such a slot, or such a peer.
        SELECT coalesce(sum(1 - null_frac) FILTER (WHERE attname LIKE 'port_'), 0) AS slots,
            coalesce(sum(1 - null_frac) FILTER (WHERE attname LIKE 'peer_'), 0) AS halves
        FROM pg_stats WHERE schemaname = 'widgets' AND tablename = 'widgets'
    ) shares;
END
$$;

CREATE OR REPLACE FUNCTION widgets.estimated_free_slots(
    OUT p double precision, OUT q double precision, OUT r double precision
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF widgets.is_distributed() THEN
        SELECT coalesce(sum(rows * shards.p), 0), coalesce(sum(rows * shards.q), 0),
            coalesce(sum(rows * shards.r), 0)
        INTO p, q, r FROM widgets.shard_statistics() shards;
        RETURN;
    END IF;
    SELECT rows * shares.p, rows * shares.q, rows * shares.r INTO p, q, r
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
    ) shares;
END
$$;

-- Begins the feed, as before.
CREATE OR REPLACE FUNCTION widgets.turn_on_changes() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF widgets.is_distributed() THEN
        RAISE EXCEPTION 'a distributed registry has no feed of changes'
            USING ERRCODE = 'feature_not_supported', HINT = 'No order of commits is common to several nodes.';
    END IF;
    LOCK TABLE widgets.widgets IN SHARE MODE;
    LOCK TABLE widgets.changes_turn IN EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM widgets.changes_store) AND widgets.keeps_changes() THEN
        RETURN false;
    END IF;
    TRUNCATE widgets.changes, widgets.changes_order, widgets.changes_store, widgets.changes_epochs;
    PERFORM setval('widgets.changes_floor', (SELECT last_value FROM widgets.changes_number));
    INSERT INTO widgets.changes_store
    VALUES (('x' || left(replace(gen_random_uuid()::text, '-', ''), 15))::bit(60)::bigint);
    INSERT INTO widgets.changes_epochs (epoch, after, life)
    SELECT 1, last_value, widgets.life() FROM widgets.changes_number;
    UPDATE widgets.changes_segments SET began = clock_timestamp();
    -- Last, as it is not undone with the rest.
    PERFORM setval('widgets.changes_segment', 1);
    RETURN true;
END
$$;
