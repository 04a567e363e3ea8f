-- Changes and retries: what was accepted, in the order of the commits, and which idempotency keys were
-- used. The feed is off until turn_on_changes() is called (`widgets migrate --changes`).
--
-- A transaction writes its changes while it works, one row for each call, and gets its numbers at its
-- commit, while it holds a lock that is the last one it takes: so the numbers stand in the order of the
-- commits, and whoever sees a number sees all before it. docs/decisions/0015 argues that.
--
-- Rows are never updated, and go by TRUNCATE: they lie in rings of partitions, of which one is written
-- to. What must not depend on a snapshot is the last value of a sequence: whoever holds the lock, or
-- reads after something happened, sees the newest one, whatever its transaction's isolation.

-- Partition that changes are written to, 1 to 8; 0: the feed is off.
CREATE SEQUENCE widgets.changes_segment AS smallint MINVALUE 0 START 0;
-- The number that was given last.
CREATE SEQUENCE widgets.changes_number AS bigint MINVALUE 0 START 0;
-- When that was, in microseconds since 1970 began.
CREATE SEQUENCE widgets.changes_moment AS bigint MINVALUE 0 START 0;
-- Changes up to this number are not kept.
CREATE SEQUENCE widgets.changes_floor AS bigint MINVALUE 0 START 0;
-- Names rows of widgets.changes, and orders nothing.
CREATE SEQUENCE widgets.changes_id AS bigint;

-- What a call did: each kind is parallel arrays, null where there is none of it. Additions come first,
-- then pairs, then removals: no widget is named twice, so that the order within a kind does not matter.
-- freed_of is the place in remove_sns of the widget whose removal freed the slot.
CREATE TABLE widgets.changes (
    segment smallint NOT NULL,
    id bigint NOT NULL DEFAULT nextval('widgets.changes_id'),
    add_sns text[], add_names text[], add_ports1 widgets.port_type[], add_ports2 widgets.port_type[],
    add_ports3 widgets.port_type[], add_by text[],
    pair_sns1 text[], pair_slots1 integer[], pair_sns2 text[], pair_slots2 integer[],
    pair_ports widgets.port_type[], pair_associates boolean[], pair_by text[],
    remove_sns text[], remove_by text[], freed_of integer[], freed_sns text[], freed_slots integer[]
) PARTITION BY LIST (segment);
CREATE INDEX changes_by_id ON widgets.changes (id);

-- Which numbers a row got: first to last, one for each operation.
CREATE TABLE widgets.changes_order (
    segment smallint NOT NULL,
    change bigint NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    at bigint NOT NULL,
    epoch integer NOT NULL
) PARTITION BY LIST (segment);
CREATE INDEX changes_order_by_last ON widgets.changes_order (last);

-- Since when each partition is written to.
CREATE TABLE widgets.changes_segments (segment smallint PRIMARY KEY, began timestamptz NOT NULL DEFAULT now());

DO $$
BEGIN
    FOR segment IN 1..8 LOOP
        EXECUTE format('CREATE TABLE widgets.changes_%1$s PARTITION OF widgets.changes FOR VALUES IN (%1$s)', segment);
        EXECUTE format('CREATE TABLE widgets.changes_order_%1$s PARTITION OF widgets.changes_order
            FOR VALUES IN (%1$s)', segment);
        INSERT INTO widgets.changes_segments (segment) VALUES (segment);
    END LOOP;
END
$$;

-- Which store this is, while the feed is on.
CREATE TABLE widgets.changes_store (identity bigint PRIMARY KEY);

-- The lives of the store. A server that was promoted or restored begins a new one with its first change:
-- what it has not got of the life before was perhaps told, and its numbers are given again.
CREATE TABLE widgets.changes_epochs (
    epoch integer PRIMARY KEY,
    after bigint NOT NULL,          -- the newest change when it began
    life text NOT NULL
);

-- What transactions lock to be given numbers. A table and no advisory lock: those anybody may take.
CREATE TABLE widgets.changes_turn ();

-- Idempotency keys, by digests of 16 bytes: of the key and whose it is, and of the request. The outcome is
-- what apply_batch gives; 'pending' stands only within a transaction.
CREATE TABLE widgets.idempotency_keys (
    segment smallint NOT NULL,
    key bytea NOT NULL,
    request bytea NOT NULL,
    outcome text NOT NULL
) PARTITION BY LIST (segment);

-- Partition that keys are written to, 1 to 4.
CREATE SEQUENCE widgets.keys_segment AS smallint;

-- Since when each one is written to, and until when, and how many keys it had by then.
CREATE TABLE widgets.keys_segments (
    segment smallint PRIMARY KEY,
    began timestamptz NOT NULL DEFAULT now(),
    ended timestamptz NOT NULL DEFAULT now(),
    keys bigint NOT NULL DEFAULT 0
);

-- Whoever uses keys holds it shared, so that all who run at one time write to one partition: there, one
-- key is in one row.
CREATE TABLE widgets.keys_turn ();

DO $$
BEGIN
    FOR segment IN 1..4 LOOP
        EXECUTE format('CREATE TABLE widgets.idempotency_keys_%1$s PARTITION OF widgets.idempotency_keys
            (PRIMARY KEY (key)) FOR VALUES IN (%1$s)', segment);
        INSERT INTO widgets.keys_segments (segment) VALUES (segment);
    END LOOP;
END
$$;

-- Whether changes are recorded. To be asked after the change was written: turn_on_changes waits for all
-- that have written, and those that come later see that it is on.
CREATE FUNCTION widgets.keeps_changes() RETURNS boolean
LANGUAGE sql VOLATILE AS $$
    SELECT last_value > 0 FROM widgets.changes_segment
$$;

-- What must differ between two histories that went apart: the cluster, its timeline (a promotion or a
-- restore to a point in time begins a new one), and where a dump was read in.
CREATE FUNCTION widgets.life() RETURNS text
LANGUAGE sql VOLATILE AS $$
    SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()),
        substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
        (SELECT oid FROM pg_database WHERE datname = current_database()), 'widgets.changes'::regclass::oid)
$$;

-- Who calls, by the token that PostgREST has checked; null for everybody else.
CREATE FUNCTION widgets.caller() RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN sub = '' THEN NULL
        WHEN octet_length(sub) <= 255 THEN sub
        ELSE left(sub, 48) || '…' || encode(substring(sha256(convert_to(sub, 'UTF8')), 1, 16), 'hex')
    END
    FROM (SELECT nullif(current_setting('request.jwt.claims', true), '')::json->>'sub' AS sub) claims
$$;

-- Gives a row its numbers, at the commit of its transaction.
CREATE FUNCTION widgets.number_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 AS $$
DECLARE
    this_life text := widgets.life();
    latest record;
    this_first bigint;
    this_last bigint;
    moment bigint;
BEGIN
    -- Nobody is to see what a crash of this server could take back.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'local', true);
    END IF;
    LOCK TABLE widgets.changes_turn IN EXCLUSIVE MODE;
    SELECT epoch, life INTO latest FROM widgets.changes_epochs ORDER BY epoch DESC LIMIT 1;
    IF latest.life IS DISTINCT FROM this_life THEN
        latest.epoch := coalesce(latest.epoch, 0) + 1;
        INSERT INTO widgets.changes_epochs (epoch, after, life)
        VALUES (latest.epoch, widgets.newest_change(), this_life);
    END IF;
    SELECT last_value + 1 INTO this_first FROM widgets.changes_number;
    this_last := this_first - 1 + coalesce(cardinality(NEW.add_sns), 0)
        + coalesce(cardinality(NEW.pair_sns1), 0) + coalesce(cardinality(NEW.remove_sns), 0);
    PERFORM setval('widgets.changes_number', this_last);
    SELECT greatest(last_value, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
    INTO moment FROM widgets.changes_moment;
    PERFORM setval('widgets.changes_moment', moment);
    INSERT INTO widgets.changes_order (segment, change, first, last, at, epoch)
    VALUES (NEW.segment, NEW.id, this_first, this_last, moment, latest.epoch);
    PERFORM pg_notify('widgets_changes', '');
    RETURN NULL;
END
$$;

-- The newest change that was committed, kept or not.
CREATE FUNCTION widgets.newest_change() RETURNS bigint
LANGUAGE sql VOLATILE AS $$
    SELECT greatest((SELECT last FROM widgets.changes_order ORDER BY last DESC LIMIT 1),
        (SELECT last_value FROM widgets.changes_floor))
$$;

-- Deferred: within a transaction of several calls a number taken at once would let nobody else commit
-- until the transaction ends, and could wait for a widget that the next one holds.
CREATE CONSTRAINT TRIGGER changes_are_numbered AFTER INSERT ON widgets.changes
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION widgets.number_change();

-- The slots of others that the removal of these widgets, which are locked with their peers, frees: of each
-- in the order of its own slots. One that goes earlier has no slots any more.
CREATE FUNCTION widgets.freed_slots(
    removed text[], OUT freed_of integer[], OUT freed_sns text[], OUT freed_slots integer[]
)
LANGUAGE sql VOLATILE AS $$
    SELECT array_agg(i ORDER BY i, own_slot), array_agg(sn ORDER BY i, own_slot),
        array_agg(slot ORDER BY i, own_slot)
    FROM (
        SELECT given.i::integer, own.slot AS own_slot, peer.serial_number AS sn, half.slot
        FROM unnest(removed) WITH ORDINALITY AS given (sn, i)
        JOIN widgets.widgets widget ON widget.serial_number = given.sn
        CROSS JOIN LATERAL (VALUES (1, widget.port1, widget.peer1), (2, widget.port2, widget.peer2),
            (3, widget.port3, widget.peer3)) AS own (slot, port, peer)
        JOIN widgets.widgets peer ON peer.serial_number = own.peer
        CROSS JOIN LATERAL (VALUES (1, peer.port1, peer.peer1), (2, peer.port2, peer.peer2),
            (3, peer.port3, peer.peer3)) AS half (slot, port, peer)
        WHERE half.port = own.port AND half.peer = given.sn
            AND coalesce(array_position(removed, peer.serial_number::text) > given.i, true)
    ) freed
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
DECLARE
    found widgets.pair_slots := widgets.lock_pair(widget1_sn, widget2_sn, port);
BEGIN
    IF found.linked1 IS NOT NULL THEN
        RAISE EXCEPTION 'Widgets with serial numbers % and % are already associated on port %',
            widget1_sn, widget2_sn, port USING ERRCODE = 'WG003';
    ELSIF found.free1 IS NULL THEN
        RAISE EXCEPTION 'Widget with serial number % has no free slot of port %',
            widget1_sn, port USING ERRCODE = 'WG002';
    ELSIF found.free2 IS NULL THEN
        RAISE EXCEPTION 'Widget with serial number % has no free slot of port %',
            widget2_sn, port USING ERRCODE = 'WG002';
    END IF;
    PERFORM widgets.set_peers(widget1_sn, found.free1, widget2_sn, found.free2, true);
    IF widgets.keeps_changes() THEN
        INSERT INTO widgets.changes (segment, pair_sns1, pair_slots1, pair_sns2, pair_slots2, pair_ports,
            pair_associates, pair_by)
        SELECT last_value, ARRAY[widget1_sn], ARRAY[found.free1], ARRAY[widget2_sn], ARRAY[found.free2],
            ARRAY[port], ARRAY[true], ARRAY[widgets.caller()]
        FROM widgets.changes_segment;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION widgets.remove_association(
    widget1_sn text, widget2_sn text, port widgets.port_type
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found widgets.pair_slots := widgets.lock_pair(widget1_sn, widget2_sn, port);
BEGIN
    IF found.linked1 IS NULL THEN
        RAISE EXCEPTION 'Widgets with serial numbers % and % are not associated on port %',
            widget1_sn, widget2_sn, port USING ERRCODE = 'WG004';
    END IF;
    PERFORM widgets.set_peers(widget1_sn, found.linked1, widget2_sn, found.linked2, false);
    IF widgets.keeps_changes() THEN
        INSERT INTO widgets.changes (segment, pair_sns1, pair_slots1, pair_sns2, pair_slots2, pair_ports,
            pair_associates, pair_by)
        SELECT last_value, ARRAY[widget1_sn], ARRAY[found.linked1], ARRAY[widget2_sn], ARRAY[found.linked2],
            ARRAY[port], ARRAY[false], ARRAY[widgets.caller()]
        FROM widgets.changes_segment;
    END IF;
END
$$;

-- Decides and applies a batch, as apply_operations did: its description is in 0004. Beside it, who asked for
-- each operation, and whether something was recorded.
CREATE FUNCTION widgets.decide_batch(
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
    freed_of integer[];
    freed_sns text[];
    freed_slots integer[];
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

-- As programs before version 6 call it.
CREATE OR REPLACE FUNCTION widgets.apply_operations(
    add_sns text[], add_names text[], add_ports1 widgets.port_type[],
    add_ports2 widgets.port_type[], add_ports3 widgets.port_type[],
    remove_sns text[],
    pair_sns1 text[], pair_sns2 text[], pair_ports widgets.port_type[], pair_associates boolean[],
    lock_first boolean,
    OUT add_outcomes text[], OUT remove_outcomes text[], OUT pair_outcomes text[]
)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT add_outcomes, remove_outcomes, pair_outcomes
    FROM widgets.decide_batch(add_sns, add_names, add_ports1, add_ports2, add_ports3, remove_sns,
        pair_sns1, pair_sns2, pair_ports, pair_associates, lock_first, NULL, NULL, NULL)
$$;

-- What some operations came to, among those of a kind that were decided: `places` of the batch's operations,
-- of which this kind's come after `before` others, have these `outcomes`, and were not decided.
CREATE FUNCTION widgets.merge_outcomes(
    operations integer, before integer, decided text[], places integer[], outcomes text[]
) RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$
    SELECT array_agg(coalesce(known.outcome, decided[number - skipped]) ORDER BY number)
    FROM (
        SELECT number, known.outcome,
            (count(known.place) OVER (ORDER BY number))::integer AS skipped
        FROM generate_series(1, operations) number
        LEFT JOIN unnest(places, outcomes) AS known (place, outcome) ON known.place = number + before
    ) known
$$;

-- Applies a batch. Operations with idempotency keys have their digests in `keys` and `requests`, and where
-- they stand in `places`: additions count from 1, removals after them, pairs after those.
--
-- An operation whose key was used gets '=' and the outcome that it had, and is not applied; 'WG422' where it
-- was used for another request; 'WG409' where another transaction is just using it. All others are decided,
-- and what they come to is kept with their keys. Without keys nothing is looked up.
--
-- Where something was recorded in the feed, it says the position after it. The call must be the whole
-- transaction: the lock is held from there to its commit.
CREATE FUNCTION widgets.apply_batch(
    add_sns text[], add_names text[], add_ports1 widgets.port_type[],
    add_ports2 widgets.port_type[], add_ports3 widgets.port_type[],
    remove_sns text[],
    pair_sns1 text[], pair_sns2 text[], pair_ports widgets.port_type[], pair_associates boolean[],
    lock_first boolean, add_by text[], remove_by text[], pair_by text[],
    keys bytea[], requests bytea[], places integer[],
    OUT add_outcomes text[], OUT remove_outcomes text[], OUT pair_outcomes text[],
    OUT store bigint, OUT epoch integer, OUT newest bigint
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '25ms'
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    adds CONSTANT integer := cardinality(add_sns);
    removals CONSTANT integer := cardinality(remove_sns);
    pairs CONSTANT integer := cardinality(pair_sns1);
    key_segment smallint;
    known integer[];                -- the places of those that are not decided,
    known_outcomes text[];          -- and what they come to
    claimed record;
    in_use integer := 0;
    outcomes text[];
    recorded boolean;
BEGIN
    IF keys IS NOT NULL THEN
        LOCK TABLE widgets.keys_turn IN ACCESS SHARE MODE;
        SELECT last_value INTO key_segment FROM widgets.keys_segment;
        SELECT array_agg(given.place),
            array_agg(CASE WHEN kept.request = given.request THEN '=' || kept.outcome ELSE 'WG422' END)
        INTO known, known_outcomes
        FROM unnest(keys, requests, places) AS given (key, request, place)
        JOIN widgets.idempotency_keys kept ON kept.key = given.key;
        IF lock_first THEN
            -- The others are claimed before anything is decided: a key that somebody else is just using
            -- must not hold up the whole batch.
            PERFORM set_config('lock_timeout', '2ms', true);
            BEGIN
                INSERT INTO widgets.idempotency_keys (segment, key, request, outcome)
                SELECT key_segment, given.key, given.request, 'pending'
                FROM unnest(keys, requests, places) AS given (key, request, place)
                WHERE given.place <> ALL (coalesce(known, '{}'));
            EXCEPTION WHEN lock_not_available OR unique_violation THEN
                FOR claimed IN
                    SELECT * FROM unnest(keys, requests, places) AS given (key, request, place)
                    WHERE given.place <> ALL (coalesce(known, '{}'))
                LOOP
                    BEGIN
                        -- To know that one is in use takes a wait: twenty are found out.
                        IF in_use = 20 THEN
                            RAISE lock_not_available;
                        END IF;
                        INSERT INTO widgets.idempotency_keys (segment, key, request, outcome)
                        VALUES (key_segment, claimed.key, claimed.request, 'pending');
                    EXCEPTION WHEN lock_not_available OR unique_violation THEN
                        in_use := least(in_use + 1, 20);
                        known := known || claimed.place;
                        known_outcomes := known_outcomes || 'WG409'::text;
                    END;
                END LOOP;
            END;
            PERFORM set_config('lock_timeout', '25ms', true);
        END IF;
    END IF;

    IF known IS NULL THEN
        SELECT decided.add_outcomes, decided.remove_outcomes, decided.pair_outcomes, decided.recorded
        INTO add_outcomes, remove_outcomes, pair_outcomes, recorded
        FROM widgets.decide_batch(add_sns, add_names, add_ports1, add_ports2, add_ports3, remove_sns,
            pair_sns1, pair_sns2, pair_ports, pair_associates, lock_first, add_by, remove_by, pair_by) decided;
    ELSE
        SELECT decided.add_outcomes, decided.remove_outcomes, decided.pair_outcomes, decided.recorded
        INTO add_outcomes, remove_outcomes, pair_outcomes, recorded
        FROM (
            SELECT coalesce(array_agg(sn ORDER BY i), '{}') AS sns, coalesce(array_agg(name ORDER BY i), '{}') AS names,
                coalesce(array_agg(port1 ORDER BY i), '{}') AS ports1,
                coalesce(array_agg(port2 ORDER BY i), '{}') AS ports2,
                coalesce(array_agg(port3 ORDER BY i), '{}') AS ports3, array_agg(by ORDER BY i) AS by
            FROM unnest(add_sns, add_names, add_ports1, add_ports2, add_ports3, add_by)
                WITH ORDINALITY AS given (sn, name, port1, port2, port3, by, i)
            WHERE i <> ALL (known)
        ) added, (
            SELECT coalesce(array_agg(sn ORDER BY i), '{}') AS sns, array_agg(by ORDER BY i) AS by
            FROM unnest(remove_sns, remove_by) WITH ORDINALITY AS given (sn, by, i)
            WHERE adds + i <> ALL (known)
        ) removed, (
            SELECT coalesce(array_agg(sn1 ORDER BY i), '{}') AS sns1, coalesce(array_agg(sn2 ORDER BY i), '{}') AS sns2,
                coalesce(array_agg(port ORDER BY i), '{}') AS ports,
                coalesce(array_agg(associates ORDER BY i), '{}') AS associates, array_agg(by ORDER BY i) AS by
            FROM unnest(pair_sns1, pair_sns2, pair_ports, pair_associates, pair_by)
                WITH ORDINALITY AS given (sn1, sn2, port, associates, by, i)
            WHERE adds + removals + i <> ALL (known)
        ) paired,
        LATERAL widgets.decide_batch(added.sns, added.names, added.ports1, added.ports2, added.ports3,
            removed.sns, paired.sns1, paired.sns2, paired.ports, paired.associates, lock_first,
            added.by, removed.by, paired.by) decided;
        add_outcomes := widgets.merge_outcomes(adds, 0, add_outcomes, known, known_outcomes);
        remove_outcomes := widgets.merge_outcomes(removals, adds, remove_outcomes, known, known_outcomes);
        pair_outcomes := widgets.merge_outcomes(pairs, adds + removals, pair_outcomes, known, known_outcomes);
    END IF;

    IF keys IS NOT NULL THEN
        outcomes := coalesce(add_outcomes, '{}') || coalesce(remove_outcomes, '{}') || coalesce(pair_outcomes, '{}');
        IF lock_first THEN
            UPDATE widgets.idempotency_keys kept SET outcome = outcomes[given.place]
            FROM unnest(keys, places) AS given (key, place)
            WHERE kept.key = given.key AND kept.outcome = 'pending' AND outcomes[given.place] <> 'locked';
            DELETE FROM widgets.idempotency_keys kept USING unnest(keys, places) AS given (key, place)
            WHERE kept.key = given.key AND kept.outcome = 'pending' AND outcomes[given.place] = 'locked';
        ELSE
            INSERT INTO widgets.idempotency_keys (segment, key, request, outcome)
            SELECT key_segment, given.key, given.request, outcomes[given.place]
            FROM unnest(keys, requests, places) AS given (key, request, place)
            WHERE given.place <> ALL (coalesce(known, '{}')) AND outcomes[given.place] <> 'locked';
        END IF;
    END IF;

    IF recorded THEN
        SET CONSTRAINTS widgets.changes_are_numbered IMMEDIATE;
        SELECT identity INTO store FROM widgets.changes_store;
        SELECT max(lives.epoch) INTO epoch FROM widgets.changes_epochs lives;
        SELECT last_value INTO newest FROM widgets.changes_number;
    END IF;
END
$$;

-- Up to so many rows of the feed after this number, in its order.
CREATE FUNCTION widgets.read_changes(after bigint, most integer)
RETURNS TABLE (
    first bigint, at bigint, epoch integer,
    add_sns text[], add_names text[], add_ports1 text[], add_ports2 text[], add_ports3 text[], add_by text[],
    pair_sns1 text[], pair_slots1 integer[], pair_sns2 text[], pair_slots2 integer[],
    pair_ports text[], pair_associates boolean[], pair_by text[],
    remove_sns text[], remove_by text[], freed_of integer[], freed_sns text[], freed_slots integer[]
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off
AS $$
    -- In the order in which keep_changes locks them.
    SELECT placed.first, placed.at, placed.epoch,
        change.add_sns, change.add_names, change.add_ports1::text[], change.add_ports2::text[],
        change.add_ports3::text[], change.add_by,
        change.pair_sns1, change.pair_slots1, change.pair_sns2, change.pair_slots2,
        change.pair_ports::text[], change.pair_associates, change.pair_by,
        change.remove_sns, change.remove_by, change.freed_of, change.freed_sns, change.freed_slots
    FROM widgets.changes change
    JOIN widgets.changes_order placed ON placed.segment = change.segment AND placed.change = change.id
    WHERE placed.last > after
    ORDER BY placed.last
    LIMIT most
$$;

-- Which store this is, null where the feed is off; its epochs, each with the newest change when it began; the
-- newest change, and the oldest one after which all are kept. Asked after a read it tells whether something
-- was let go that the read should have found.
CREATE FUNCTION widgets.changes_state(
    OUT store bigint, OUT epochs integer[], OUT afters bigint[], OUT newest bigint, OUT oldest bigint
)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT (SELECT identity FROM widgets.changes_store WHERE widgets.keeps_changes()),
        (SELECT array_agg(epoch ORDER BY epoch) FROM widgets.changes_epochs),
        (SELECT array_agg(after ORDER BY epoch) FROM widgets.changes_epochs),
        widgets.newest_change(), (SELECT last_value FROM widgets.changes_floor)
$$;

-- Begins the feed with a new identity; says whether it was off. Waits for all that write, so that from its
-- commit on nothing is accepted that is not recorded.
CREATE FUNCTION widgets.turn_on_changes() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
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

-- Ends the feed, and lets go of what it kept; says whether it was on.
CREATE FUNCTION widgets.turn_off_changes() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    was_on boolean;
BEGIN
    LOCK TABLE widgets.widgets IN SHARE MODE;
    LOCK TABLE widgets.changes_turn IN EXCLUSIVE MODE;
    was_on := widgets.keeps_changes();
    TRUNCATE widgets.changes, widgets.changes_order, widgets.changes_store, widgets.changes_epochs;
    PERFORM setval('widgets.changes_segment', 0);
    RETURN was_on;
END
$$;

-- Lets go of changes that are older than so many hours, and of the oldest where all have more bytes; goes on
-- to the next partition where the present one has had its part. Says how many bytes they have. Any number of
-- services may call it.
CREATE FUNCTION widgets.keep_changes(retention_hours integer, retention_bytes bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    current_segment integer;
    other_segment integer;
    newest record;
    bytes bigint;
    total bigint := 0;
    next_is_empty boolean;
    retention CONSTANT interval := make_interval(hours => retention_hours);
    shares CONSTANT integer := 8;
BEGIN
    SELECT last_value INTO current_segment FROM widgets.changes_segment;
    IF current_segment = 0 THEN
        RETURN 0;
    END IF;
    FOR number IN 1..shares LOOP
        total := total + widgets.changes_bytes(number);
    END LOOP;
    -- One at a time.
    IF shares > (SELECT count(*) FROM (
        SELECT FROM widgets.changes_segments FOR UPDATE SKIP LOCKED) held) THEN
        RETURN total;
    END IF;
    -- From the oldest on.
    FOR distance IN 1..shares - 1 LOOP
        other_segment := (current_segment - 1 + distance) % shares + 1;
        EXECUTE format('SELECT last, at FROM widgets.changes_order_%s ORDER BY last DESC LIMIT 1', other_segment)
        INTO newest;
        CONTINUE WHEN newest.last IS NULL;
        EXIT WHEN to_timestamp(newest.at / 1000000.0) >= clock_timestamp() - retention
            AND total <= retention_bytes;
        bytes := widgets.changes_bytes(other_segment);
        BEGIN
            EXECUTE format('LOCK TABLE widgets.changes_%1$s, widgets.changes_order_%1$s IN ACCESS EXCLUSIVE MODE',
                other_segment);
            EXECUTE format('SELECT max(last) AS last, max(at) AS at FROM widgets.changes_order_%s', other_segment)
            INTO newest;
            -- Before they go: who reads and then asks for it knows that it has perhaps not read all.
            PERFORM setval('widgets.changes_floor',
                greatest(newest.last, (SELECT last_value FROM widgets.changes_floor)));
            EXECUTE format('TRUNCATE widgets.changes_%1$s, widgets.changes_order_%1$s', other_segment);
        EXCEPTION WHEN lock_not_available THEN
            -- Somebody reads them, or is about to commit there: the next time.
            EXIT;
        END;
        total := total - bytes;
    END LOOP;
    other_segment := current_segment % shares + 1;
    EXECUTE format('SELECT NOT EXISTS (SELECT FROM widgets.changes_order_%1$s)
        AND EXISTS (SELECT FROM widgets.changes_order_%2$s)', other_segment, current_segment) INTO next_is_empty;
    IF next_is_empty AND (widgets.changes_bytes(current_segment) > retention_bytes / shares
        OR (SELECT began FROM widgets.changes_segments WHERE segment = current_segment)
            < clock_timestamp() - retention / (shares - 2)) THEN
        UPDATE widgets.changes_segments SET began = clock_timestamp() WHERE segment = other_segment;
        PERFORM setval('widgets.changes_segment', other_segment);
    END IF;
    RETURN total;
END
$$;

CREATE FUNCTION widgets.changes_bytes(segment integer) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
    SELECT pg_total_relation_size(format('widgets.changes_%s', segment)::regclass)
        + pg_total_relation_size(format('widgets.changes_order_%s', segment)::regclass)
$$;

-- Lets go of idempotency keys that are older than so many hours, and of the oldest where there are more than
-- so many; goes on to the next partition where the present one has had its part. Says how many there are,
-- and how many went before their time.
CREATE FUNCTION widgets.keep_keys(retention_hours integer, keys_max bigint, OUT keys bigint, OUT early bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
#variable_conflict use_column
DECLARE
    current_segment integer;
    present bigint;
    going record;
    held bigint;
    retention CONSTANT interval := make_interval(hours => retention_hours);
    shares CONSTANT integer := 4;
BEGIN
    early := 0;
    SELECT count(*) INTO held FROM (SELECT FROM widgets.keys_segments FOR UPDATE SKIP LOCKED) held;
    SELECT last_value INTO current_segment FROM widgets.keys_segment;
    EXECUTE format('SELECT count(*) FROM widgets.idempotency_keys_%s', current_segment) INTO present;
    SELECT present + coalesce(sum(kept.keys), 0) INTO keys
    FROM widgets.keys_segments kept WHERE kept.segment <> current_segment;
    -- One at a time.
    IF held < shares OR present = 0 THEN
        RETURN;
    END IF;
    SELECT kept.segment, kept.keys, kept.ended < clock_timestamp() - retention AS is_over INTO going
    FROM widgets.keys_segments kept WHERE kept.segment = current_segment % shares + 1;
    IF present * shares < keys_max AND (SELECT began FROM widgets.keys_segments kept
            WHERE kept.segment = current_segment) >= clock_timestamp() - retention / (shares - 2)
        OR going.keys > 0 AND NOT going.is_over AND keys < keys_max THEN
        RETURN;
    END IF;
    BEGIN
        -- Nobody uses a key now: all that come write to the next partition, and see what is in this one.
        LOCK TABLE widgets.keys_turn IN EXCLUSIVE MODE;
        EXECUTE format('TRUNCATE widgets.idempotency_keys_%s', going.segment);
    EXCEPTION WHEN lock_not_available THEN
        RETURN;
    END;
    UPDATE widgets.keys_segments SET ended = clock_timestamp(), keys = present WHERE segment = current_segment;
    UPDATE widgets.keys_segments SET began = clock_timestamp(), keys = 0 WHERE segment = going.segment;
    PERFORM setval('widgets.keys_segment', going.segment);
    keys := keys - going.keys;
    early := CASE WHEN going.is_over THEN 0 ELSE going.keys END;
END
$$;

-- Whoever may send batches may send them so, and has the feed, roles that somebody else granted that included.
DO $$
DECLARE
    role_name name;
BEGIN
    FOR role_name IN
        SELECT DISTINCT pg_get_userbyid(granted.grantee)
        FROM pg_proc function CROSS JOIN LATERAL aclexplode(function.proacl) granted
        WHERE function.pronamespace = 'widgets'::regnamespace AND function.proname = 'apply_operations'
            AND granted.grantee NOT IN (0, function.proowner)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION widgets.apply_batch, widgets.read_changes,
            widgets.changes_state, widgets.keep_changes, widgets.keep_keys TO %I', role_name);
    END LOOP;
END
$$;
