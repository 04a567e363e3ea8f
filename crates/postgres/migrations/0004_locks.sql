-- No call changes a row that it has not locked, and rows that a call may wait for are locked in the
-- order of serial numbers, as bytes: then no two calls wait for each other. What the service sends
-- waits for nobody for long: operations whose widgets another transaction holds are told apart from
-- the others of their batch.

-- As before, and arrays are read by their elements, whatever number their first one has.
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
    -- The primary key refuses a serial number that is taken, in the words of the specification.
    INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
    VALUES (widget_sn, widget_name, slots[1]::widgets.port_type, slots[2]::widgets.port_type,
        slots[3]::widgets.port_type);
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
BEGIN
    IF widget_sn IS NULL THEN
        PERFORM widgets.refuse_null('widget_sn');
    ELSIF widget_sn = '' OR octet_length(widget_sn) > 255 THEN
        PERFORM widgets.check_serial_number('widget_sn', widget_sn);
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
END
$$;

-- Adds widgets as far as nobody is about to add the same ones: for apply_operations, where adding
-- them all by one statement did not work. A serial number whose addition is not committed yet is
-- 'locked'; to know it takes a wait, so a call finds out twenty of them and leaves the rest.
CREATE FUNCTION widgets.add_one_by_one(
    add_sns text[], add_names text[], add_ports1 widgets.port_type[],
    add_ports2 widgets.port_type[], add_ports3 widgets.port_type[], taken text[]
) RETURNS text[]
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    given record;
    outcomes text[] := '{}';
    outcome text;
    locked integer := 0;
BEGIN
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
    RETURN outcomes;
END
$$;

-- Applies a batch in which no widget is named twice, and gives each operation its own outcome.
--
-- The operations of one kind are parallel arrays; add_ports1 to 3 are the ports of the widgets to add,
-- null where there is no such slot. pair_associates tells associate_widgets (true) from
-- remove_association (false). The outcomes stand in the order of the operations: 'ok' or the code of
-- the refusal, followed by /1 or /2 where it concerns one of two widgets, or 'locked': another
-- transaction holds the widget or one of its peers, and the operation was not applied. The caller has
-- checked arguments and limits, and knows the messages.
--
-- Each kind is decided on one moment, which is a refusal's moment too. Without lock_first a batch
-- locks nothing before it writes, but for its removals: what is to be written must then still be as it
-- was read. The writes say so and count what they change, and where anything has changed meanwhile the
-- whole call fails with 40001, 23505 (a serial number was taken) or 23503 (one of two halves), and may
-- be made again. They go in the order of serial numbers, so that they do not deadlock, and wait 25 ms
-- for any lock: one that is held longer fails the call with 55P03.
--
-- Widgets to remove and their peers are locked before anything is read of them, without a wait, and so
-- are with lock_first all others: those that another transaction holds are passed over, and their
-- operations are 'locked'. With lock_first nothing waits but additions, for 2 ms. What never waits
-- needs no order.
--
-- The settings make each plan a loop over the arrays with an index search for each element, however
-- large the table is and whatever the statistics say.
CREATE OR REPLACE FUNCTION widgets.apply_operations(
    add_sns text[], add_names text[], add_ports1 widgets.port_type[],
    add_ports2 widgets.port_type[], add_ports3 widgets.port_type[],
    remove_sns text[],
    pair_sns1 text[], pair_sns2 text[], pair_ports widgets.port_type[], pair_associates boolean[],
    lock_first boolean,
    OUT add_outcomes text[], OUT remove_outcomes text[], OUT pair_outcomes text[]
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '25ms'
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    taken text[];
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
BEGIN
    IF add_sns <> '{}' THEN
        -- One that is taken between the two statements fails the call (23505): it may be made again.
        SELECT array_agg(widget.serial_number) INTO taken
        FROM unnest(add_sns) AS given (sn)
        JOIN widgets.widgets widget ON widget.serial_number = given.sn;
        IF lock_first THEN
            PERFORM set_config('lock_timeout', '2ms', true);
            BEGIN
                -- "IS NOT TRUE" keeps these a look into a hash table, not a join.
                INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
                SELECT given.* FROM unnest(add_sns, add_names, add_ports1, add_ports2, add_ports3)
                    AS given (sn, name, port1, port2, port3)
                WHERE (given.sn IN (SELECT unnest(taken))) IS NOT TRUE
                ORDER BY given.sn COLLATE "C";
            EXCEPTION WHEN lock_not_available OR unique_violation THEN
                add_outcomes := widgets.add_one_by_one(
                    add_sns, add_names, add_ports1, add_ports2, add_ports3, taken);
            END;
            PERFORM set_config('lock_timeout', '25ms', true);
        ELSIF taken IS NULL THEN
            INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
            SELECT given.* FROM unnest(add_sns, add_names, add_ports1, add_ports2, add_ports3)
                AS given (sn, name, port1, port2, port3)
            ORDER BY given.sn COLLATE "C";
        ELSE
            INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
            SELECT given.* FROM unnest(add_sns, add_names, add_ports1, add_ports2, add_ports3)
                AS given (sn, name, port1, port2, port3)
            WHERE (given.sn IN (SELECT unnest(taken))) IS NOT TRUE
            ORDER BY given.sn COLLATE "C";
        END IF;
        IF add_outcomes IS NOT NULL THEN
            NULL;
        ELSIF taken IS NULL THEN
            add_outcomes := array_fill('ok'::text, ARRAY[cardinality(add_sns)]);
        ELSE
            SELECT array_agg(
                CASE WHEN given.sn IN (SELECT unnest(taken)) THEN '23505' ELSE 'ok' END
                ORDER BY given.i)
            INTO add_outcomes
            FROM unnest(add_sns) WITH ORDINALITY AS given (sn, i);
        END IF;
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
END
$$;

-- The oldest program that can work with the schema, by the version that it was made for: the service
-- asks this beside the version.
CREATE FUNCTION widgets.oldest_program() RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT max(coalesce(oldest_program, version)) FROM widgets.migrations
$$;

-- Whoever may ask for the version may ask this as well, roles that somebody else granted it included.
DO $$
DECLARE
    role_name name;
BEGIN
    FOR role_name IN
        SELECT pg_get_userbyid(granted.grantee)
        FROM pg_proc function CROSS JOIN LATERAL aclexplode(function.proacl) granted
        WHERE function.oid = 'widgets.schema_version()'::regprocedure
            AND granted.grantee NOT IN (0, function.proowner)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION widgets.oldest_program() TO %I', role_name);
    END LOOP;
END
$$;
