-- The four operations, one call each, and the lookup: what web_anon may do.
--
-- Each function says in the specification's order what stands against the call, with the code as
-- SQLSTATE. Rows are locked in the order of (widget_sn, ordinal) by every function: opposite calls
-- wait for each other and do not deadlock. The writes check what was decided once more (40001).
--
-- The helpers run under the pinned search_path of the functions that call them, and nobody else may.

-- Refuses what a serial number cannot be. NUL cannot reach it: PostgreSQL's text has none.
CREATE FUNCTION widgets.check_serial_number(field text, serial_number text) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF serial_number = '' THEN
        RAISE EXCEPTION '% must be at least 1 byte long, 0 were given', field
            USING ERRCODE = 'WG007';
    ELSIF octet_length(serial_number) > 255 THEN
        RAISE EXCEPTION '% must be at most 255 bytes long, % were given',
            field, octet_length(serial_number) USING ERRCODE = 'WG007';
    END IF;
END
$$;

CREATE FUNCTION widgets.refuse_null(field text) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE EXCEPTION 'null value in argument "%" violates not-null constraint', field
        USING ERRCODE = '23502';
END
$$;

CREATE FUNCTION widgets.refuse_missing(serial_number text) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE EXCEPTION 'Widget with serial number % does not exist', serial_number
        USING ERRCODE = 'WG001';
END
$$;

-- The client's transaction lost a race that the locks do not cover: it may simply try again.
CREATE FUNCTION widgets.refuse_conflict() RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE EXCEPTION 'could not serialize access due to concurrent changes of these widgets'
        USING ERRCODE = '40001';
END
$$;

CREATE FUNCTION widgets.add_widget(widget_sn text, widget_name text, slots text[]) RETURNS void
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

    -- The primary key refuses a serial number that is taken, in the words of the specification.
    INSERT INTO widgets.widgets (serial_number, name)
    VALUES (add_widget.widget_sn, add_widget.widget_name);
    IF slots <> '{}' THEN
        INSERT INTO widgets.slots (widget_sn, ordinal, port)
        SELECT add_widget.widget_sn, slot.i - 1, slot.port::widgets.port_type
        FROM unnest(slots) WITH ORDINALITY AS slot (port, i);
    END IF;
END
$$;

CREATE FUNCTION widgets.remove_widget(widget_sn text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    known_peers text[];
    peers bigint;
    freed bigint;
BEGIN
    IF widget_sn IS NULL THEN
        PERFORM widgets.refuse_null('widget_sn');
    ELSIF widget_sn = '' OR octet_length(widget_sn) > 255 THEN
        PERFORM widgets.check_serial_number('widget_sn', widget_sn);
    END IF;

    -- From here on it is this widget, and not a later one of the same serial number.
    PERFORM 1 FROM widgets.widgets widget
    WHERE widget.serial_number = remove_widget.widget_sn
    FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM widgets.refuse_missing(widget_sn);
    END IF;
    -- Its slots and those of its peers. A peer that it got before they were locked, or one that was
    -- removed and came again, may not be locked now, out of order: then a slot that names a peer has
    -- no counterpart among the locked ones.
    SELECT coalesce(array_agg(slot.peer_sn), '{}') INTO known_peers
    FROM widgets.slots slot
    WHERE slot.widget_sn = remove_widget.widget_sn AND slot.peer_sn IS NOT NULL;
    SELECT
        count(*) FILTER (WHERE locked.widget_sn = remove_widget.widget_sn
            AND locked.peer_sn IS NOT NULL),
        count(*) FILTER (WHERE locked.peer_sn = remove_widget.widget_sn)
    INTO peers, freed
    FROM (
        SELECT slot.widget_sn, slot.peer_sn FROM widgets.slots slot
        WHERE slot.widget_sn = ANY (known_peers || remove_widget.widget_sn)
        ORDER BY slot.widget_sn, slot.ordinal
        FOR UPDATE
    ) locked;
    IF freed <> peers THEN
        PERFORM widgets.refuse_conflict();
    END IF;

    WITH removed AS (
        DELETE FROM widgets.slots slot WHERE slot.widget_sn = remove_widget.widget_sn
        RETURNING slot.port, slot.peer_sn
    ), freed AS (
        UPDATE widgets.slots slot SET peer_sn = NULL FROM removed
        WHERE slot.widget_sn = removed.peer_sn
            AND slot.port = removed.port AND slot.peer_sn = remove_widget.widget_sn
        RETURNING 1
    )
    SELECT (SELECT count(peer_sn) FROM removed), (SELECT count(*) FROM freed) INTO peers, freed;
    IF freed <> peers THEN
        PERFORM widgets.refuse_conflict();
    END IF;
    DELETE FROM widgets.widgets WHERE serial_number = remove_widget.widget_sn;
END
$$;

-- What both operations on two widgets check of their arguments.
CREATE FUNCTION widgets.check_pair(widget1_sn text, widget2_sn text, port widgets.port_type)
RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF widget1_sn IS NULL THEN
        PERFORM widgets.refuse_null('widget1_sn');
    ELSIF widget2_sn IS NULL THEN
        PERFORM widgets.refuse_null('widget2_sn');
    ELSIF port IS NULL THEN
        PERFORM widgets.refuse_null('port');
    END IF;
    PERFORM widgets.check_serial_number('widget1_sn', widget1_sn);
    PERFORM widgets.check_serial_number('widget2_sn', widget2_sn);
    IF widget1_sn = widget2_sn THEN
        RAISE EXCEPTION 'Widget with serial number % cannot be associated with itself', widget1_sn
            USING ERRCODE = 'WG005';
    END IF;
END
$$;

-- Of two locked widgets the slots of one port type: how many, the one that names the other widget,
-- and the free one with the lowest ordinal, each null where there is none.
CREATE TYPE widgets.pair_slots AS (
    count1 bigint, linked1 smallint, free1 smallint,
    count2 bigint, linked2 smallint, free2 smallint
);

-- Locks the slots of one port type of both widgets and tells what they are.
CREATE FUNCTION widgets.lock_pair(widget1_sn text, widget2_sn text, port widgets.port_type)
RETURNS widgets.pair_slots
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    result widgets.pair_slots;
    missing text;
    is_new boolean;
BEGIN
    SELECT
        count(*) FILTER (WHERE locked.widget_sn = lock_pair.widget1_sn),
        min(ordinal) FILTER (WHERE locked.widget_sn = lock_pair.widget1_sn
            AND peer_sn = lock_pair.widget2_sn),
        min(ordinal) FILTER (WHERE locked.widget_sn = lock_pair.widget1_sn AND peer_sn IS NULL),
        count(*) FILTER (WHERE locked.widget_sn = lock_pair.widget2_sn),
        min(ordinal) FILTER (WHERE locked.widget_sn = lock_pair.widget2_sn
            AND peer_sn = lock_pair.widget1_sn),
        min(ordinal) FILTER (WHERE locked.widget_sn = lock_pair.widget2_sn AND peer_sn IS NULL)
    INTO result
    FROM (
        SELECT slot.widget_sn, slot.ordinal, slot.peer_sn FROM widgets.slots slot
        WHERE slot.widget_sn IN (lock_pair.widget1_sn, lock_pair.widget2_sn)
            AND slot.port = lock_pair.port
        ORDER BY slot.widget_sn, slot.ordinal
        FOR UPDATE
    ) locked;
    IF result.count1 > 0 AND result.count2 > 0 THEN
        RETURN result;
    END IF;
    -- A widget without such slots cannot be locked by them. Either it does not exist, or it
    -- never has any: decided on one moment. Or it has come into being since then, and may not be
    -- locked now, out of order.
    SELECT CASE
        WHEN NOT EXISTS (SELECT FROM widgets.widgets widget
            WHERE widget.serial_number = lock_pair.widget1_sn) THEN lock_pair.widget1_sn
        WHEN NOT EXISTS (SELECT FROM widgets.widgets widget
            WHERE widget.serial_number = lock_pair.widget2_sn) THEN lock_pair.widget2_sn
    END, EXISTS (
        SELECT FROM widgets.slots slot
        WHERE slot.port = lock_pair.port
            AND ((result.count1 = 0 AND slot.widget_sn = lock_pair.widget1_sn)
                OR (result.count2 = 0 AND slot.widget_sn = lock_pair.widget2_sn)))
    INTO missing, is_new;
    IF missing IS NOT NULL THEN
        PERFORM widgets.refuse_missing(missing);
    END IF;
    IF is_new THEN
        PERFORM widgets.refuse_conflict();
    END IF;
    RETURN result;
END
$$;

CREATE FUNCTION widgets.associate_widgets(
    widget1_sn text, widget2_sn text, port widgets.port_type
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found widgets.pair_slots;
    updated bigint;
BEGIN
    PERFORM widgets.check_pair(widget1_sn, widget2_sn, port);
    found := widgets.lock_pair(widget1_sn, widget2_sn, port);
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
    UPDATE widgets.slots slot SET peer_sn = change.peer_sn
    FROM (VALUES (widget1_sn, found.free1, widget2_sn), (widget2_sn, found.free2, widget1_sn))
        AS change (widget_sn, ordinal, peer_sn)
    WHERE slot.widget_sn = change.widget_sn AND slot.ordinal = change.ordinal
        AND slot.peer_sn IS NULL;
    GET DIAGNOSTICS updated = ROW_COUNT;
    IF updated <> 2 THEN
        PERFORM widgets.refuse_conflict();
    END IF;
END
$$;

CREATE FUNCTION widgets.remove_association(
    widget1_sn text, widget2_sn text, port widgets.port_type
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found widgets.pair_slots;
    updated bigint;
BEGIN
    PERFORM widgets.check_pair(widget1_sn, widget2_sn, port);
    found := widgets.lock_pair(widget1_sn, widget2_sn, port);
    IF found.linked1 IS NULL THEN
        RAISE EXCEPTION 'Widgets with serial numbers % and % are not associated on port %',
            widget1_sn, widget2_sn, port USING ERRCODE = 'WG004';
    END IF;
    UPDATE widgets.slots slot SET peer_sn = NULL
    FROM (VALUES (widget1_sn, found.linked1, widget2_sn), (widget2_sn, found.linked2, widget1_sn))
        AS change (widget_sn, ordinal, peer_sn)
    WHERE slot.widget_sn = change.widget_sn AND slot.ordinal = change.ordinal
        AND slot.peer_sn = change.peer_sn;
    GET DIAGNOSTICS updated = ROW_COUNT;
    IF updated <> 2 THEN
        PERFORM widgets.refuse_conflict();
    END IF;
END
$$;

-- A widget with its slots in their order, no row if there is none. One statement sees one moment.
CREATE FUNCTION widgets.lookup_widget(widget_sn text)
RETURNS TABLE (serial_number text, name text, slots json)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT widget.serial_number, widget.name, coalesce(
        (SELECT json_agg(json_build_object('port', slot.port, 'peer', slot.peer_sn)
            ORDER BY slot.ordinal)
         FROM widgets.slots slot WHERE slot.widget_sn = widget.serial_number),
        '[]')
    FROM widgets.widgets widget WHERE widget.serial_number = lookup_widget.widget_sn
$$;
