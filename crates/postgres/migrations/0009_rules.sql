-- The rules that refuse an operation. They stand here once, for batches and single calls, on one server and on a cluster.

-- The rules about peers become a trigger on UPDATE, because only an UPDATE writes peers. PostgreSQL reads and plans a
-- CHECK again for each statement, also for one that adds a widget, which has no peers: these three took a fifth of the
-- time of a single addition.
ALTER TABLE widgets.widgets
    DROP CONSTRAINT widgets_peers_in_slots,
    DROP CONSTRAINT widgets_peer_differs,
    DROP CONSTRAINT widgets_associated_once_per_port;
CREATE FUNCTION widgets.refuse_unfit_peer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'update on table "widgets" violates constraint trigger "%"', TG_NAME
        USING ERRCODE = 'check_violation',
            DETAIL = 'A peer is in a slot, is another widget, and is associated once for each port.';
END
$$;
CREATE TRIGGER widgets_peers_fit AFTER UPDATE ON widgets.widgets FOR EACH ROW
    WHEN (
        NEW.peer1 IS NOT NULL AND NEW.port1 IS NULL OR NEW.peer2 IS NOT NULL AND NEW.port2 IS NULL
        OR NEW.peer3 IS NOT NULL AND NEW.port3 IS NULL
        OR NEW.peer1 = NEW.serial_number OR NEW.peer2 = NEW.serial_number OR NEW.peer3 = NEW.serial_number
        OR NEW.port1 = NEW.port2 AND NEW.peer1 = NEW.peer2 OR NEW.port1 = NEW.port3 AND NEW.peer1 = NEW.peer3
        OR NEW.port2 = NEW.port3 AND NEW.peer2 = NEW.peer3)
    EXECUTE FUNCTION widgets.refuse_unfit_peer();

-- Whether the table is distributed, and the shard of a serial number. distribute.sql replaces both functions.
CREATE FUNCTION widgets.is_distributed() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT false';
CREATE FUNCTION widgets.shard_of(serial_number text) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT 0::bigint';

-- Returns the first free slot of this port type, or null.
CREATE FUNCTION widgets.free_slot(
    port1 widgets.port_type, peer1 text, port2 widgets.port_type, peer2 text,
    port3 widgets.port_type, peer3 text, port widgets.port_type
) RETURNS integer
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN port1 = port AND peer1 IS NULL THEN 1
        WHEN port2 = port AND peer2 IS NULL THEN 2
        WHEN port3 = port AND peer3 IS NULL THEN 3
    END
$$;

-- Returns the slot of this port type that is associated with that widget, or null.
CREATE FUNCTION widgets.linked_slot(
    port1 widgets.port_type, peer1 text, port2 widgets.port_type, peer2 text,
    port3 widgets.port_type, peer3 text, port widgets.port_type, peer_sn text
) RETURNS integer
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN port1 = port AND peer1 = peer_sn THEN 1
        WHEN port2 = port AND peer2 = peer_sn THEN 2
        WHEN port3 = port AND peer3 = peer_sn THEN 3
    END
$$;

-- The outcome of an operation on two widgets. It follows from whether each exists, from the slot that links the first
-- to the second, and from the first free slot of each.
CREATE FUNCTION widgets.pair_outcome(
    exists1 boolean, exists2 boolean, linked1 integer, free1 integer, free2 integer, associates boolean
) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN NOT exists1 THEN 'WG001/1'
        WHEN NOT exists2 THEN 'WG001/2'
        WHEN NOT associates THEN CASE WHEN linked1 IS NULL THEN 'WG004' ELSE 'ok' END
        WHEN linked1 IS NOT NULL THEN 'WG003'
        WHEN free1 IS NULL THEN 'WG002/1'
        WHEN free2 IS NULL THEN 'WG002/2'
        ELSE 'ok'
    END
$$;

-- The error message for an operation on two widgets that the rules refuse. PostgreSQL inlines it into the plans of its
-- callers, because each argument is used once and format() is STABLE, as this function is. Otherwise it would be planned
-- again for each refusal.
CREATE FUNCTION widgets.pair_message(outcome text, widget1_sn text, widget2_sn text, port widgets.port_type)
RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT format(CASE outcome
        WHEN 'WG003' THEN 'Widgets with serial numbers %1$s and %2$s are already associated on port %3$s'
        WHEN 'WG004' THEN 'Widgets with serial numbers %1$s and %2$s are not associated on port %3$s'
        WHEN 'WG001/1' THEN 'Widget with serial number %1$s does not exist'
        WHEN 'WG001/2' THEN 'Widget with serial number %2$s does not exist'
        WHEN 'WG002/1' THEN 'Widget with serial number %1$s has no free slot of port %3$s'
        WHEN 'WG002/2' THEN 'Widget with serial number %2$s has no free slot of port %3$s'
    END, widget1_sn, widget2_sn, port)
$$;

-- Checks the arguments of both operations on two widgets.
CREATE FUNCTION widgets.check_pair(widget1_sn text, widget2_sn text, port widgets.port_type) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
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
END
$$;

-- The slot that an operation on two widgets changes in one of them, or null if the rules refuse it. An association
-- takes the first free slot, unless the two are already associated; a removal frees the slot that names the other
-- widget.
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
