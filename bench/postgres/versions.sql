-- What versions.sh sets up in each of its databases: widgets, and functions that call batches of a given size.
INSERT INTO widgets.widgets (serial_number, name, port1, port2, port3)
SELECT 'w' || n, 'widget ' || n, 'P', 'Q', 'R' FROM generate_series(0, 199999) n;
VACUUM (FREEZE, ANALYZE) widgets.widgets;

-- The CPU time that a backend had taken, in nanoseconds: negative at the start of a measurement, positive at its end.
CREATE TABLE public.taken (operation text NOT NULL, round integer NOT NULL, ns bigint NOT NULL);
CREATE FUNCTION public.stamp(operation text, round integer, sign bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO public.taken
    SELECT operation, round, sign * split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)::bigint
$$;

CREATE FUNCTION public.refused(widget1_sn text, widget2_sn text, port widgets.port_type) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM widgets.associate_widgets(widget1_sn, widget2_sn, port);
    RAISE EXCEPTION 'it was not refused';
EXCEPTION WHEN SQLSTATE 'WG003' THEN
    NULL;
END
$$;

-- The functions below call as the service does.
CREATE FUNCTION public.adds(n integer, size integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    sns text[] := ARRAY(SELECT 'b' || i FROM generate_series((n - 1) * size + 1, n * size) i);
BEGIN
    PERFORM widgets.apply_batch(sns, array_fill('a widget of the bench'::text, ARRAY[size]),
        array_fill('P'::widgets.port_type, ARRAY[size]), array_fill('R'::widgets.port_type, ARRAY[size]),
        array_fill(NULL::widgets.port_type, ARRAY[size]), '{}', '{}', '{}', '{}', '{}', false,
        NULL, NULL, NULL, NULL, NULL, NULL);
END
$$;

CREATE FUNCTION public.lookups(n integer, size integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM * FROM widgets.lookup_widgets(ARRAY(SELECT 'b' || i FROM generate_series((n - 1) * size + 1, n * size) i));
END
$$;

CREATE FUNCTION public.pairs(n integer, size integer, associates boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM widgets.apply_batch('{}', '{}', '{}', '{}', '{}', '{}',
        ARRAY(SELECT 'w' || (2 * i * 7368787 % 200000) FROM generate_series((n - 1) * size + 1, n * size::bigint) i),
        ARRAY(SELECT 'w' || ((2 * i + 1) * 7368787 % 200000) FROM generate_series((n - 1) * size + 1, n * size::bigint) i),
        array_fill('P'::widgets.port_type, ARRAY[size]), array_fill(associates, ARRAY[size]), false,
        NULL, NULL, NULL, NULL, NULL, NULL);
END
$$;

CREATE FUNCTION public.removals(n integer, size integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM widgets.apply_batch('{}', '{}', '{}', '{}', '{}',
        ARRAY(SELECT 'b' || i FROM generate_series((n - 1) * size + 1, n * size) i), '{}', '{}', '{}', '{}', false,
        NULL, NULL, NULL, NULL, NULL, NULL);
END
$$;
