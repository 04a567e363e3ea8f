-- The table. Applied once and never edited: what changes later is another migration.

-- Serial numbers and names are bytes of UTF-8 to every rule and every index.
DO $$
BEGIN
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'the database must be encoded in UTF8, not in %',
            current_setting('server_encoding');
    END IF;
END
$$;

-- Sorted as the names are. Other types come at the end: the order is persisted in indexes.
CREATE TYPE widgets.port_type AS ENUM ('P', 'Q', 'R');

-- A widget is one row with its slots in it: portN is the type of slot N, null where the widget has no
-- such slot, and peerN the serial number of the widget that it is associated with, null while it is
-- free. So an association changes two rows and no index, and a widget is found by one search.
--
-- One index, which every statement needs. Its name is part of the API: clients read it in the
-- message of 23505.
CREATE TABLE widgets.widgets (
    serial_number text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    port1 widgets.port_type,
    port2 widgets.port_type,
    port3 widgets.port_type,
    peer1 text COLLATE "C",
    peer2 text COLLATE "C",
    peer3 text COLLATE "C",
    CONSTRAINT widgets_serial_number_key PRIMARY KEY (serial_number),
    CONSTRAINT widgets_serial_number_bytes CHECK (octet_length(serial_number) BETWEEN 1 AND 255),
    CONSTRAINT widgets_name_bytes CHECK (octet_length(name) <= 1024),
    CONSTRAINT widgets_slots_without_gaps CHECK (
        (port1 IS NOT NULL OR port2 IS NULL) AND (port2 IS NOT NULL OR port3 IS NULL)),
    CONSTRAINT widgets_peers_in_slots CHECK (
        (peer1 IS NULL OR port1 IS NOT NULL) AND (peer2 IS NULL OR port2 IS NOT NULL)
        AND (peer3 IS NULL OR port3 IS NOT NULL)),
    CONSTRAINT widgets_peer_differs CHECK (
        peer1 <> serial_number AND peer2 <> serial_number AND peer3 <> serial_number),
    CONSTRAINT widgets_associated_once_per_port CHECK (
        NOT (port1 = port2 AND peer1 = peer2) AND NOT (port1 = port3 AND peer1 = peer3)
        AND NOT (port2 = port3 AND peer2 = peer3))
);

-- An association is two widgets that name each other in slots of one port type. A statement makes or
-- unmakes both halves of it, and widgets come and go without peers. Where that holds for every
-- statement, half an association cannot come about, whatever else runs at the same time, and no other
-- row has to be read to know it. (Citus has no such triggers: there the functions alone keep it.)
CREATE FUNCTION widgets.check_both_halves() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    broken record;
BEGIN
    -- Of each association the halves in the rows before and after are counted together: one that
    -- stays, comes or goes with both its rows is there an even number of times.
    SELECT least(widget, peer) AS widget1, greatest(widget, peer) AS widget2, port INTO broken
    FROM (
        SELECT serial_number AS widget, port1 AS port, peer1 AS peer FROM after WHERE peer1 IS NOT NULL
        UNION ALL SELECT serial_number, port2, peer2 FROM after WHERE peer2 IS NOT NULL
        UNION ALL SELECT serial_number, port3, peer3 FROM after WHERE peer3 IS NOT NULL
        UNION ALL SELECT serial_number, port1, peer1 FROM before WHERE peer1 IS NOT NULL
        UNION ALL SELECT serial_number, port2, peer2 FROM before WHERE peer2 IS NOT NULL
        UNION ALL SELECT serial_number, port3, peer3 FROM before WHERE peer3 IS NOT NULL
    ) half
    GROUP BY least(widget, peer), greatest(widget, peer), port
    HAVING count(*) % 2 = 1
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'update on table "widgets" violates constraint trigger "widgets_both_halves"'
            USING ERRCODE = 'foreign_key_violation', DETAIL = format(
                'Half of the association of %s and %s on port %s.',
                broken.widget1, broken.widget2, broken.port);
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION widgets.refuse_peers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on table "widgets" violates constraint trigger "%"', lower(TG_OP), TG_NAME
        USING ERRCODE = 'foreign_key_violation', DETAIL = 'A widget comes and goes without peers.';
END
$$;

CREATE FUNCTION widgets.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a widget keeps its serial number and its ports'
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER widgets_both_halves AFTER UPDATE ON widgets.widgets
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION widgets.check_both_halves();
CREATE TRIGGER widgets_come_without_peers AFTER INSERT ON widgets.widgets FOR EACH ROW
    WHEN (num_nonnulls(NEW.peer1, NEW.peer2, NEW.peer3) > 0)
    EXECUTE FUNCTION widgets.refuse_peers();
CREATE TRIGGER widgets_go_without_peers AFTER DELETE ON widgets.widgets FOR EACH ROW
    WHEN (num_nonnulls(OLD.peer1, OLD.peer2, OLD.peer3) > 0)
    EXECUTE FUNCTION widgets.refuse_peers();
CREATE TRIGGER widgets_keep_serial_numbers_and_ports
    BEFORE UPDATE OF serial_number, port1, port2, port3 ON widgets.widgets
    FOR EACH STATEMENT EXECUTE FUNCTION widgets.refuse_change();

-- A row's next version finds room on the same page: then no index changes, and one page is written.
--
-- Every row that changes moves or goes: vacuum and statistics must keep up with the rate of changes,
-- not with the size of the table.
ALTER TABLE widgets.widgets SET (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.05
);

-- The slots one by one, to be read: slot N of a widget is its row with the ordinal N.
CREATE VIEW widgets.slots AS
    SELECT widget.serial_number AS widget_sn, slot.ordinal, slot.port, slot.peer AS peer_sn
    FROM widgets.widgets widget
    CROSS JOIN LATERAL (VALUES
        (1, widget.port1, widget.peer1), (2, widget.port2, widget.peer2), (3, widget.port3, widget.peer3)
    ) AS slot (ordinal, port, peer)
    WHERE slot.port IS NOT NULL;
