-- The tables. Applied once and never edited: what changes later is another migration.

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

-- The primary key's name is part of the API: clients read it in the message of 23505.
CREATE TABLE widgets.widgets (
    serial_number text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    CONSTRAINT widgets_serial_number_key PRIMARY KEY (serial_number),
    CONSTRAINT widgets_serial_number_bytes CHECK (octet_length(serial_number) BETWEEN 1 AND 255),
    CONSTRAINT widgets_name_bytes CHECK (octet_length(name) <= 1024)
);

-- One row for each slot, made and removed with its widget. peer_sn is null while it is free.
--
-- Two indexes. The primary key finds a widget's slots, and lets each ordinal be there once. The key
-- of associations lets two widgets be associated once per port type, and finds a slot from its
-- peer's side. Both begin with widget_sn: on Citus the tables are distributed by it.
CREATE TABLE widgets.slots (
    widget_sn text COLLATE "C" NOT NULL,
    ordinal smallint NOT NULL,
    port widgets.port_type NOT NULL,
    peer_sn text COLLATE "C",
    CONSTRAINT slots_pkey PRIMARY KEY (widget_sn, ordinal),
    CONSTRAINT slots_association_key UNIQUE (widget_sn, port, peer_sn),
    CONSTRAINT slots_ordinal_range CHECK (ordinal BETWEEN 0 AND 2),
    CONSTRAINT slots_peer_differs CHECK (peer_sn <> widget_sn)
);

-- An association is two slots that name each other. So each slot with a peer refers to the peer's
-- slot that names it: half an association cannot be committed, whoever writes it. Deferred, since
-- the two halves change one after the other. (Citus has no such key: there the functions alone
-- keep it.)
ALTER TABLE widgets.slots
    ADD CONSTRAINT slots_association_fkey FOREIGN KEY (peer_sn, port, widget_sn)
    REFERENCES widgets.slots (widget_sn, port, peer_sn) DEFERRABLE INITIALLY DEFERRED;

-- A slot belongs to a widget. A foreign key would say so row by row, with a query for each slot: a
-- third of the cost of adding widgets by the batch. These triggers ask the same once a statement.
CREATE FUNCTION widgets.check_slots_have_widgets() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    orphan text;
BEGIN
    -- A subquery for each row, not a join: it is an index search however many rows there are.
    SELECT added.widget_sn INTO orphan FROM added
    WHERE (SELECT widget.serial_number FROM widgets.widgets widget
        WHERE widget.serial_number = added.widget_sn) IS NULL
    LIMIT 1;
    IF orphan IS NOT NULL THEN
        RAISE EXCEPTION 'insert on table "slots" violates constraint trigger "slots_have_widgets"'
            USING ERRCODE = 'foreign_key_violation',
            DETAIL = format('Key (widget_sn)=(%s) is not present in table "widgets".', orphan);
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION widgets.check_removed_widgets_have_no_slots() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    orphan text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        SELECT widget_sn INTO orphan FROM widgets.slots LIMIT 1;
    ELSE
        SELECT removed.serial_number INTO orphan FROM removed
        WHERE (SELECT slot.widget_sn FROM widgets.slots slot
            WHERE slot.widget_sn = removed.serial_number LIMIT 1) IS NOT NULL
        LIMIT 1;
    END IF;
    IF orphan IS NOT NULL THEN
        RAISE EXCEPTION 'delete on table "widgets" violates constraint trigger "widgets_have_slots"'
            USING ERRCODE = 'foreign_key_violation',
            DETAIL = format('Key (serial_number)=(%s) is still referenced from table "slots".', orphan);
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION widgets.refuse_renaming() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a widget keeps its serial number' USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER slots_have_widgets AFTER INSERT ON widgets.slots
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION widgets.check_slots_have_widgets();
CREATE TRIGGER widgets_have_slots AFTER DELETE ON widgets.widgets
    REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION widgets.check_removed_widgets_have_no_slots();
CREATE TRIGGER widgets_have_slots_when_truncated AFTER TRUNCATE ON widgets.widgets
    FOR EACH STATEMENT EXECUTE FUNCTION widgets.check_removed_widgets_have_no_slots();
CREATE TRIGGER widgets_keep_serial_numbers BEFORE UPDATE OF serial_number ON widgets.widgets
    FOR EACH STATEMENT EXECUTE FUNCTION widgets.refuse_renaming();
CREATE TRIGGER slots_keep_widgets BEFORE UPDATE OF widget_sn, ordinal, port ON widgets.slots
    FOR EACH STATEMENT EXECUTE FUNCTION widgets.refuse_renaming();

-- Every row that changes is deleted or moves: vacuum and statistics must keep up with the rate of
-- changes, not with the size of the table.
ALTER TABLE widgets.widgets SET (
    autovacuum_vacuum_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.05
);
-- A row's next version finds room on the same page: one page less to write for each change.
ALTER TABLE widgets.slots SET (
    fillfactor = 85,
    autovacuum_vacuum_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.05
);
