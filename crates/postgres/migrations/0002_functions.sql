-- The four operations, one call each, and the lookup: what web_anon may do.
--
-- Each function says in the specification's order what stands against the call, with the code as
-- SQLSTATE. Rows are locked in the order of serial numbers by every function: opposite calls wait for
-- each other and do not deadlock. The writes check what was decided once more (40001).
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
    INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
    VALUES (widget_sn, widget_name, slots[1]::widgets.port_type, slots[2]::widgets.port_type,
        slots[3]::widgets.port_type);
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

    -- Its peers are locked with it, in order; so they are read first. One that it got meanwhile is
    -- not locked, and may not be locked now, out of order: then it names more than name it.
    SELECT ARRAY[widget.peer1, widget.peer2, widget.peer3] INTO known_peers
    FROM widgets.widgets widget WHERE widget.serial_number = remove_widget.widget_sn;
    IF NOT FOUND THEN
        PERFORM widgets.refuse_missing(widget_sn);
    END IF;
    SELECT
        sum(num_nonnulls(peer1, peer2, peer3))
            FILTER (WHERE serial_number = remove_widget.widget_sn),
        count(*) FILTER (WHERE peer1 = remove_widget.widget_sn)
            + count(*) FILTER (WHERE peer2 = remove_widget.widget_sn)
            + count(*) FILTER (WHERE peer3 = remove_widget.widget_sn)
    INTO peers, freed
    FROM (
        SELECT widget.serial_number, widget.peer1, widget.peer2, widget.peer3
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
        UPDATE widgets.widgets widget SET
            peer1 = CASE WHEN serial_number <> remove_widget.widget_sn
                AND peer1 <> remove_widget.widget_sn THEN peer1 END,
            peer2 = CASE WHEN serial_number <> remove_widget.widget_sn
                AND peer2 <> remove_widget.widget_sn THEN peer2 END,
            peer3 = CASE WHEN serial_number <> remove_widget.widget_sn
                AND peer3 <> remove_widget.widget_sn THEN peer3 END
        WHERE serial_number = ANY (known_peers || remove_widget.widget_sn);
    END IF;
    DELETE FROM widgets.widgets WHERE serial_number = remove_widget.widget_sn;
END
$$;

-- The first slot of this port type that is free, or null.
CREATE FUNCTION widgets.free_slot(widget widgets.widgets, port widgets.port_type) RETURNS integer
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN widget.port1 = port AND widget.peer1 IS NULL THEN 1
        WHEN widget.port2 = port AND widget.peer2 IS NULL THEN 2
        WHEN widget.port3 = port AND widget.peer3 IS NULL THEN 3
    END
$$;

-- The slot of this port type that is associated with this widget, or null.
CREATE FUNCTION widgets.linked_slot(
    widget widgets.widgets, port widgets.port_type, peer_sn text
) RETURNS integer
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN widget.port1 = port AND widget.peer1 = peer_sn THEN 1
        WHEN widget.port2 = port AND widget.peer2 = peer_sn THEN 2
        WHEN widget.port3 = port AND widget.peer3 = peer_sn THEN 3
    END
$$;

-- Of two locked widgets and one port type: the slots that join them, null where none do, and the
-- first free ones, null where there are none.
CREATE TYPE widgets.pair_slots AS (
    linked1 integer, linked2 integer, free1 integer, free2 integer
);

-- What both operations on two widgets begin with: checks the arguments, locks both, and tells.
CREATE FUNCTION widgets.lock_pair(widget1_sn text, widget2_sn text, port widgets.port_type)
RETURNS widgets.pair_slots
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    result widgets.pair_slots;
    found1 boolean;
    found2 boolean;
BEGIN
    IF widget1_sn IS NULL THEN
        PERFORM widgets.refuse_null('widget1_sn');
    ELSIF widget2_sn IS NULL THEN
        PERFORM widgets.refuse_null('widget2_sn');
    ELSIF port IS NULL THEN
        PERFORM widgets.refuse_null('port');
    ELSIF widget1_sn = '' OR octet_length(widget1_sn) > 255 THEN
        PERFORM widgets.check_serial_number('widget1_sn', widget1_sn);
    ELSIF widget2_sn = '' OR octet_length(widget2_sn) > 255 THEN
        PERFORM widgets.check_serial_number('widget2_sn', widget2_sn);
    ELSIF widget1_sn = widget2_sn THEN
        RAISE EXCEPTION 'Widget with serial number % cannot be associated with itself', widget1_sn
            USING ERRCODE = 'WG005';
    END IF;
    SELECT
        bool_or(is_first), bool_or(NOT is_first),
        min(linked) FILTER (WHERE is_first), min(linked) FILTER (WHERE NOT is_first),
        min(free) FILTER (WHERE is_first), min(free) FILTER (WHERE NOT is_first)
    INTO found1, found2, result.linked1, result.linked2, result.free1, result.free2
    FROM (
        SELECT widget.serial_number = lock_pair.widget1_sn AS is_first,
            widgets.free_slot(widget, lock_pair.port) AS free,
            widgets.linked_slot(widget, lock_pair.port,
                CASE WHEN widget.serial_number = lock_pair.widget1_sn
                    THEN lock_pair.widget2_sn ELSE lock_pair.widget1_sn END) AS linked
        FROM widgets.widgets widget
        WHERE widget.serial_number IN (lock_pair.widget1_sn, lock_pair.widget2_sn)
        ORDER BY widget.serial_number
        FOR UPDATE
    ) locked;
    IF found1 IS NOT TRUE THEN
        PERFORM widgets.refuse_missing(widget1_sn);
    ELSIF found2 IS NOT TRUE THEN
        PERFORM widgets.refuse_missing(widget2_sn);
    END IF;
    RETURN result;
END
$$;

-- Lets a slot of each of two locked widgets name the other, or nobody.
CREATE FUNCTION widgets.set_peers(
    widget1_sn text, slot1 integer, widget2_sn text, slot2 integer, associates boolean
) RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    changed bigint;
BEGIN
    UPDATE widgets.widgets widget SET
        peer1 = CASE WHEN change.slot = 1 THEN change.to_peer ELSE peer1 END,
        peer2 = CASE WHEN change.slot = 2 THEN change.to_peer ELSE peer2 END,
        peer3 = CASE WHEN change.slot = 3 THEN change.to_peer ELSE peer3 END
    FROM (VALUES
        (widget1_sn, slot1, CASE WHEN NOT associates THEN widget2_sn END,
            CASE WHEN associates THEN widget2_sn END),
        (widget2_sn, slot2, CASE WHEN NOT associates THEN widget1_sn END,
            CASE WHEN associates THEN widget1_sn END)
    ) AS change (sn, slot, from_peer, to_peer)
    WHERE serial_number = change.sn
        AND CASE change.slot WHEN 1 THEN peer1 WHEN 2 THEN peer2 ELSE peer3 END
            IS NOT DISTINCT FROM change.from_peer;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed <> 2 THEN
        PERFORM widgets.refuse_conflict();
    END IF;
END
$$;

CREATE FUNCTION widgets.associate_widgets(
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
END
$$;

CREATE FUNCTION widgets.remove_association(
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
