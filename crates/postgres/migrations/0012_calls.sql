-- The functions for single operations, and the other queries of a registry. They follow the rules of 0009, and use the
-- functions of 0010 if the table is distributed.

CREATE OR REPLACE FUNCTION widgets.add_widget(widget_sn text, widget_name text, slots text[])
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    is_recorded boolean;
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
        -- The error names the first wrong slot, as the embedded store's does.
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
    -- The primary key refuses a serial number that is taken, with the message that the specification requires.
    INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
    VALUES (widget_sn, widget_name, slots[1]::widgets.port_type, slots[2]::widgets.port_type,
        slots[3]::widgets.port_type)
    RETURNING (SELECT last_value > 0 FROM widgets.changes_segment) INTO is_recorded;
    IF is_recorded THEN
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
    is_recorded boolean;
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
    -- Its peers are read first, so that they can be locked together with it, in order. A peer that it gets after that
    -- read is not locked, and must not be locked later, out of order. The counts then differ: it names more peers than
    -- the locked rows that name it.
    SELECT array_remove(ARRAY[widget.peer1, widget.peer2, widget.peer3], NULL) INTO known_peers
    FROM widgets.widgets widget WHERE widget.serial_number = remove_widget.widget_sn;
    IF NOT FOUND THEN
        PERFORM widgets.refuse_missing(widget_sn);
    ELSIF known_peers = '{}' THEN
        DELETE FROM widgets.widgets
        WHERE serial_number = remove_widget.widget_sn AND num_nonnulls(peer1, peer2, peer3) = 0
        RETURNING (SELECT last_value > 0 FROM widgets.changes_segment) INTO is_recorded;
        IF NOT FOUND THEN
            IF EXISTS (SELECT FROM widgets.widgets WHERE serial_number = remove_widget.widget_sn) THEN
                PERFORM widgets.refuse_conflict();
            END IF;
            PERFORM widgets.refuse_missing(widget_sn);
        END IF;
    ELSE
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
        END IF;
        -- From here on, turning the feed on waits for this transaction, so the answer of the next query stays true until
        -- the commit.
        LOCK TABLE widgets.widgets IN ROW EXCLUSIVE MODE;
        SELECT last_value > 0 INTO is_recorded FROM widgets.changes_segment;
        IF is_recorded AND peers > 0 THEN
            SELECT * INTO freed_of, freed_sns, freed_slots FROM widgets.freed_slots(ARRAY[widget_sn]);
        END IF;
        -- Rows are found by their places, not their serial numbers: a peer that was removed and added again while this
        -- call waited has the same serial number, but is not locked.
        UPDATE widgets.widgets widget SET
            peer1 = CASE WHEN serial_number <> remove_widget.widget_sn
                AND peer1 <> remove_widget.widget_sn THEN peer1 END,
            peer2 = CASE WHEN serial_number <> remove_widget.widget_sn
                AND peer2 <> remove_widget.widget_sn THEN peer2 END,
            peer3 = CASE WHEN serial_number <> remove_widget.widget_sn
                AND peer3 <> remove_widget.widget_sn THEN peer3 END
        WHERE peers > 0 AND widget.ctid = ANY (places);
        DELETE FROM widgets.widgets WHERE serial_number = remove_widget.widget_sn;
    END IF;
    IF is_recorded THEN
        INSERT INTO widgets.changes (segment, remove_sns, remove_by, freed_of, freed_sns, freed_slots)
        SELECT last_value, ARRAY[widget_sn], ARRAY[widgets.caller()], freed_of, freed_sns, freed_slots
        FROM widgets.changes_segment;
    END IF;
END
$$;

-- Locks two widgets, adds or removes their association, and records the change. It returns a value so that its callers can
-- call it in an assignment, which is cheaper than a query.
CREATE FUNCTION widgets.change_pair(
    widget1_sn text, widget2_sn text, port widgets.port_type, associates boolean
) RETURNS boolean
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    in_order boolean;
    one_sn text;                    -- the widget that is locked first
    two_sn text;
    one_place tid;
    two_place tid;
    one_linked integer;
    two_linked integer;
    one_free integer;
    two_free integer;
    outcome text;
    changed bigint;
BEGIN
    IF (widget1_sn <> widget2_sn AND port IS NOT NULL AND octet_length(widget1_sn) BETWEEN 1 AND 255
        AND octet_length(widget2_sn) BETWEEN 1 AND 255) IS NOT TRUE
    THEN
        PERFORM widgets.check_pair(widget1_sn, widget2_sn, port);
    END IF;
    in_order := widget1_sn COLLATE "C" < widget2_sn;
    one_sn := CASE WHEN in_order THEN widget1_sn ELSE widget2_sn END;
    two_sn := CASE WHEN in_order THEN widget2_sn ELSE widget1_sn END;
    -- FOR UPDATE locks the two rows in the order in which it names them.
    SELECT one.ctid, two.ctid,
        widgets.linked_slot(one.port1, one.peer1, one.port2, one.peer2, one.port3, one.peer3,
            change_pair.port, two_sn),
        widgets.linked_slot(two.port1, two.peer1, two.port2, two.peer2, two.port3, two.peer3,
            change_pair.port, one_sn),
        widgets.free_slot(one.port1, one.peer1, one.port2, one.peer2, one.port3, one.peer3, change_pair.port),
        widgets.free_slot(two.port1, two.peer1, two.port2, two.peer2, two.port3, two.peer3, change_pair.port)
    INTO one_place, two_place, one_linked, two_linked, one_free, two_free
    FROM widgets.widgets one, widgets.widgets two
    WHERE one.serial_number = one_sn AND two.serial_number = two_sn
    FOR UPDATE OF one, two;
    IF NOT FOUND THEN
        SELECT widgets.pair_outcome(
            EXISTS (SELECT FROM widgets.widgets WHERE serial_number = widget1_sn),
            EXISTS (SELECT FROM widgets.widgets WHERE serial_number = widget2_sn), NULL, NULL, NULL, NULL)
        INTO outcome;
        IF outcome NOT LIKE 'WG001%' THEN
            -- One of them was added while this call waited for the other.
            PERFORM widgets.refuse_conflict();
        END IF;
    ELSE
        outcome := widgets.pair_outcome(true, true, one_linked,
            CASE WHEN in_order THEN one_free ELSE two_free END,
            CASE WHEN in_order THEN two_free ELSE one_free END, associates);
    END IF;
    IF outcome <> 'ok' THEN
        RAISE EXCEPTION USING ERRCODE = left(outcome, 5),
            MESSAGE = widgets.pair_message(outcome, widget1_sn, widget2_sn, port);
    END IF;
    IF NOT associates THEN
        one_free := one_linked;
        two_free := two_linked;
    END IF;
    -- Rows are found by their places, which cannot change while they are locked.
    UPDATE widgets.widgets widget SET
        peer1 = CASE WHEN change.slot = 1 THEN change.peer ELSE peer1 END,
        peer2 = CASE WHEN change.slot = 2 THEN change.peer ELSE peer2 END,
        peer3 = CASE WHEN change.slot = 3 THEN change.peer ELSE peer3 END
    FROM (VALUES
        (one_place, one_free, CASE WHEN associates THEN two_sn END),
        (two_place, two_free, CASE WHEN associates THEN one_sn END)
    ) AS change (place, slot, peer)
    WHERE widget.ctid = change.place;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed <> 2 THEN
        PERFORM widgets.refuse_conflict();
    END IF;
    SELECT last_value INTO changed FROM widgets.changes_segment;
    IF changed > 0 THEN
        INSERT INTO widgets.changes (segment, pair_sns1, pair_slots1, pair_sns2, pair_slots2, pair_ports,
            pair_associates, pair_by)
        VALUES (changed, ARRAY[widget1_sn], ARRAY[CASE WHEN in_order THEN one_free ELSE two_free END],
            ARRAY[widget2_sn], ARRAY[CASE WHEN in_order THEN two_free ELSE one_free END],
            ARRAY[port], ARRAY[associates], ARRAY[widgets.caller()]);
    END IF;
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION widgets.associate_widgets(
    widget1_sn text, widget2_sn text, port widgets.port_type
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    changed boolean;
BEGIN
    IF widgets.is_distributed() THEN
        PERFORM widgets.change_one_distributed(widget1_sn, widget2_sn, port, true);
    ELSE
        changed := widgets.change_pair(widget1_sn, widget2_sn, port, true);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION widgets.remove_association(
    widget1_sn text, widget2_sn text, port widgets.port_type
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    changed boolean;
BEGIN
    IF widgets.is_distributed() THEN
        PERFORM widgets.change_one_distributed(widget1_sn, widget2_sn, port, false);
    ELSE
        changed := widgets.change_pair(widget1_sn, widget2_sn, port, false);
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

-- lock_pair, set_peers, free_slot and linked_slot of 0006 are not used any more, but stay: a call that has begun, and waits
-- until this migration is committed, continues with them. A later release removes them.

-- The statistics of each shard, from its last ANALYZE.
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
        -- For each column, the share of widgets in which it is not null.
        SELECT coalesce(sum(1 - null_frac) FILTER (WHERE attname LIKE 'port_'), 0) AS slots,
            coalesce(sum(1 - null_frac) FILTER (WHERE attname LIKE 'peer_'), 0) AS halves
        FROM pg_stats WHERE schemaname = 'widgets' AND tablename = 'widgets'
    ) shares;
END
$$;

-- Estimates how many slots of each port type are free. Returns 0 until the first ANALYZE after this migration, which
-- autovacuum starts.
CREATE FUNCTION widgets.estimated_free_slots(
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
            -- Each value of these statistics is a port type and whether the slot is free, with its share of the widgets.
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

-- Every role that may call estimated_counts may call this as well, also roles to which an administrator granted it.
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

-- Lets go of old changes. It is described in 0006.
CREATE OR REPLACE FUNCTION widgets.keep_changes(retention_hours integer, retention_bytes bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    current_segment integer;
    other_segment integer;
    newest record;
    bytes bigint;
    total bigint := 0;
    next_is_empty boolean;
    alone boolean;
    retention CONSTANT interval := make_interval(hours => retention_hours);
    shares CONSTANT integer := 8;
BEGIN
    -- One at a time. Before anything is read: another call may just be going on to the next partition, and what was the
    -- oldest one would then be the one that is written.
    alone := shares = (SELECT count(*) FROM (
        SELECT FROM widgets.changes_segments FOR UPDATE SKIP LOCKED) held);
    SELECT last_value INTO current_segment FROM widgets.changes_segment;
    IF current_segment = 0 THEN
        RETURN 0;
    END IF;
    FOR number IN 1..shares LOOP
        total := total + widgets.changes_bytes(number);
    END LOOP;
    IF NOT alone THEN
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

-- Turns the feed on. It is described in 0006.
CREATE OR REPLACE FUNCTION widgets.turn_on_changes() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    LOCK TABLE widgets.widgets IN SHARE MODE;
    LOCK TABLE widgets.changes_turn IN EXCLUSIVE MODE;
    -- Only now, because the registry may have been distributed while this waited.
    IF widgets.is_distributed() THEN
        RAISE EXCEPTION 'a distributed registry has no feed of changes'
            USING ERRCODE = 'feature_not_supported', HINT = 'No order of commits is common to several nodes.';
    END IF;
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
    -- Last, because a rollback does not undo setval.
    PERFORM setval('widgets.changes_segment', 1);
    RETURN true;
END
$$;
