-- Lists and neighbourhoods: what reads many widgets. Each call is one statement, which sees one moment.

-- A widget's slots as the lookup shows them, in jsonb.
CREATE FUNCTION widgets.slots_of(port1 widgets.port_type, peer1 text, port2 widgets.port_type, peer2 text,
    port3 widgets.port_type, peer3 text)
RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT CASE
        WHEN port1 IS NULL THEN '[]'::jsonb
        WHEN port2 IS NULL THEN jsonb_build_array(jsonb_build_object('port', port1, 'peer', peer1))
        WHEN port3 IS NULL THEN jsonb_build_array(jsonb_build_object('port', port1, 'peer', peer1),
            jsonb_build_object('port', port2, 'peer', peer2))
        ELSE jsonb_build_array(jsonb_build_object('port', port1, 'peer', peer1),
            jsonb_build_object('port', port2, 'peer', peer2), jsonb_build_object('port', port3, 'peer', peer3))
    END;
END;

-- What PostgREST shows as the tables of section "Lists" in docs/api.md. In a schema of their own: the
-- table widgets.widgets has other columns.
CREATE SCHEMA widgets_lists;

CREATE VIEW widgets_lists.widgets AS
    SELECT serial_number, name, widgets.slots_of(port1, peer1, port2, peer2, port3, peer3) AS slots
    FROM widgets.widgets;

CREATE VIEW widgets_lists.slots AS
    SELECT widget_sn, ordinal, port, peer_sn FROM widgets.slots;

-- The condition that a filter is, as text of SQL. Nothing of what a caller wrote gets into that text:
-- columns, operators, and ports come from the words below, and texts are in the parameter $1, named by
-- their place in it. `negated` is whether a NOT is around it: there, null must not stand for false.
--
-- {"all": […]}  {"any": […]}  {"not": …}
-- {"column": "name", "test": "eq", "text": 1}        eq neq gt gte lt lte like ilike
-- {"column": "name", "test": "in", "first": 1, "last": 3}
-- {"column": "ordinal", "test": "eq", "number": 2}   {"column": "ordinal", "test": "in", "numbers": [1, 2]}
-- {"column": "peer_sn", "test": "null"}
-- {"column": "slots", "test": "contains", "patterns": [{"port": "R", "peer": null}, {"text": 1}]}
CREATE FUNCTION widgets.condition(filter jsonb, negated boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    value text;
    operator text;
    operand text;
    pattern jsonb;
    slot text;
    slots text;
    result text;
BEGIN
    IF filter ? 'all' THEN
        SELECT string_agg(widgets.condition(each, negated), ' AND ' ORDER BY place) INTO result
        FROM jsonb_array_elements(filter->'all') WITH ORDINALITY list (each, place);
        RETURN '(' || coalesce(result, 'TRUE') || ')';
    ELSIF filter ? 'any' THEN
        SELECT string_agg(widgets.condition(each, negated), ' OR ' ORDER BY place) INTO result
        FROM jsonb_array_elements(filter->'any') WITH ORDINALITY list (each, place);
        RETURN '(' || coalesce(result, 'FALSE') || ')';
    ELSIF filter ? 'not' THEN
        RETURN '(NOT ' || widgets.condition(filter->'not', true) || ')';
    END IF;
    IF filter->>'test' = 'contains' THEN
        result := 'TRUE';
        FOR pattern IN SELECT jsonb_array_elements(filter->'patterns') LOOP
            slots := NULL;
            FOR number IN 1..3 LOOP
                slot := format('widget.port%s %s', number, CASE pattern->>'port'
                    WHEN 'P' THEN '= ''P''' WHEN 'Q' THEN '= ''Q''' WHEN 'R' THEN '= ''R'''
                    ELSE 'IS NOT NULL' END);
                IF pattern ? 'text' THEN
                    slot := slot || format(' AND widget.peer%s = $1[%s]', number, (pattern->>'text')::integer);
                ELSIF pattern ? 'peer' THEN
                    slot := slot || format(' AND widget.peer%s IS NULL', number);
                END IF;
                slots := concat_ws(' OR ', slots, '(' || slot || ')');
            END LOOP;
            IF negated THEN
                slots := '(' || slots || ') IS TRUE';
            ELSIF pattern ? 'text' THEN
                -- Both ends know each other: the peers of one widget are found by its own row.
                result := result || ' AND ' || widgets.is_peer((pattern->>'text')::integer);
            END IF;
            result := result || ' AND (' || slots || ')';
        END LOOP;
        RETURN '(' || result || ')';
    END IF;
    value := CASE filter->>'column'
        WHEN 'serial_number' THEN 'widget.serial_number'
        WHEN 'name' THEN 'widget.name'
        WHEN 'widget_sn' THEN 'widget.serial_number'
        WHEN 'ordinal' THEN 'slot.ordinal'
        WHEN 'port' THEN '(slot.port::text COLLATE "C")'
        WHEN 'peer_sn' THEN 'slot.peer'
    END;
    IF filter->>'test' = 'null' THEN
        RETURN '(' || value || ' IS NULL)';
    END IF;
    operator := CASE filter->>'test'
        WHEN 'eq' THEN '=' WHEN 'neq' THEN '<>' WHEN 'gt' THEN '>' WHEN 'gte' THEN '>='
        WHEN 'lt' THEN '<' WHEN 'lte' THEN '<=' WHEN 'like' THEN 'LIKE' WHEN 'ilike' THEN 'ILIKE'
        WHEN 'in' THEN '= ANY'
    END;
    IF operator IN ('LIKE', 'ILIKE') AND filter->>'column' = 'ordinal' THEN
        value := '(slot.ordinal::text COLLATE "C")';
    END IF;
    operand := CASE
        WHEN filter ? 'text' THEN format('$1[%s]', (filter->>'text')::integer)
        WHEN filter ? 'first' THEN
            format('($1[%s:%s])', (filter->>'first')::integer, (filter->>'last')::integer)
        WHEN filter ? 'number' THEN format('(%s)', (filter->>'number')::integer)
        WHEN filter ? 'numbers' THEN (
            SELECT format('(ARRAY[%s]::integer[])', string_agg(number::integer::text, ', '))
            FROM jsonb_array_elements_text(filter->'numbers') list (number))
    END;
    IF value IS NULL OR operator IS NULL OR operand IS NULL THEN
        RAISE EXCEPTION 'there is no such condition: %', filter USING ERRCODE = 'invalid_parameter_value';
    END IF;
    result := format('(%s %s %s)', value, operator, operand);
    IF NOT negated AND filter->>'column' = 'peer_sn' AND filter->>'test' = 'eq' THEN
        result := '(' || result || ' AND ' || widgets.is_peer((filter->>'text')::integer) || ')';
    END IF;
    RETURN result;
END
$$;

-- Whether a widget is a peer of the one that is named at this place of $1.
CREATE FUNCTION widgets.is_peer(place integer) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('widget.serial_number = ANY (ARRAY(
        SELECT peer.serial_number FROM widgets.widgets named
        CROSS JOIN LATERAL (VALUES (named.peer1), (named.peer2), (named.peer3)) AS peer (serial_number)
        WHERE named.serial_number = $1[%s] AND peer.serial_number IS NOT NULL))', place)
$$;

-- Rows of a list, then one row that has nothing but the total, where that is counted. Of slots, each row
-- is one slot: its port and its peer are the only ones, and it has an ordinal.
--
-- STABLE: all of it sees the moment of the statement that calls it.
CREATE FUNCTION widgets.list_rows(relation text, filter jsonb, texts text[], descending boolean,
    skip bigint, most integer, counted boolean)
RETURNS TABLE (serial_number text, name text, ports text[], peers text[], ordinal integer, total bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    columns text;
    source text;
    direction text := CASE WHEN descending THEN 'DESC' ELSE 'ASC' END;
    rows_in_order text;
BEGIN
    CASE relation
        WHEN 'widgets' THEN
            columns := 'widget.serial_number, widget.name,
                array_remove(ARRAY[widget.port1, widget.port2, widget.port3]::text[], NULL),
                (ARRAY[widget.peer1, widget.peer2, widget.peer3])[
                    1:num_nonnulls(widget.port1, widget.port2, widget.port3)],
                NULL::integer, NULL::bigint';
            source := 'widgets.widgets widget';
            rows_in_order := format('widget.serial_number %s', direction);
        WHEN 'slots' THEN
            columns := 'widget.serial_number, NULL::text, ARRAY[slot.port::text], ARRAY[slot.peer],
                slot.ordinal, NULL::bigint';
            source := 'widgets.widgets widget CROSS JOIN LATERAL (VALUES (1, widget.port1, widget.peer1),
                (2, widget.port2, widget.peer2), (3, widget.port3, widget.peer3)) AS slot (ordinal, port, peer)';
            rows_in_order := format('widget.serial_number %1$s, slot.ordinal %1$s', direction);
    END CASE;
    source := source || ' WHERE ' || widgets.condition(list_rows.filter, false);
    IF relation = 'slots' THEN
        source := source || ' AND slot.port IS NOT NULL';
    END IF;
    IF most > 0 THEN
        RETURN QUERY EXECUTE format('SELECT %s FROM %s ORDER BY %s OFFSET $2 LIMIT $3', columns, source,
            rows_in_order) USING texts, skip, most;
    END IF;
    IF counted THEN
        EXECUTE format('SELECT count(*) FROM %s', source) INTO total USING texts;
        RETURN QUERY SELECT NULL::text, NULL::text, NULL::text[], NULL::text[], NULL::integer, list_rows.total;
    END IF;
END
$$;

-- Widgets within so many associations, the nearest first, those as near as each other by serial number.
-- No row if the widget is not there. Whether there were more is in every row.
CREATE FUNCTION widgets.neighbourhood(widget_sn text, depth integer, widgets_max integer)
RETURNS TABLE (serial_number text, name text, ports text[], peers text[], truncated boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    seen text[] := ARRAY[widget_sn];
    nearest text[] := seen;
    room integer;
    cut boolean := false;
BEGIN
    FOR level IN 1..depth LOOP
        SELECT array_agg(DISTINCT peer.serial_number COLLATE "C" ORDER BY peer.serial_number COLLATE "C")
        INTO nearest
        FROM widgets.widgets widget
        CROSS JOIN LATERAL (VALUES (widget.peer1), (widget.peer2), (widget.peer3)) AS peer (serial_number)
        WHERE widget.serial_number = ANY (nearest) AND peer.serial_number <> ALL (seen);
        EXIT WHEN nearest IS NULL;
        room := widgets_max - cardinality(seen);
        IF cardinality(nearest) > room THEN
            cut := true;
            nearest := nearest[1:room];
        END IF;
        EXIT WHEN cardinality(nearest) = 0;
        seen := seen || nearest;
    END LOOP;
    RETURN QUERY
        SELECT widget.serial_number, widget.name,
            array_remove(ARRAY[widget.port1, widget.port2, widget.port3]::text[], NULL),
            (ARRAY[widget.peer1, widget.peer2, widget.peer3])[
                1:num_nonnulls(widget.port1, widget.port2, widget.port3)],
            cut
        FROM unnest(seen) WITH ORDINALITY AS shown (serial_number, place)
        JOIN widgets.widgets widget ON widget.serial_number = shown.serial_number COLLATE "C"
        ORDER BY shown.place;
END
$$;
