-- The function that citus.py calls on each of its servers: it applies one of the batches that were copied there, as the
-- service would.

-- Some operations use only one of the arrays.
CREATE TABLE public.batches (
    way text, kind text, size integer, number integer, sns1 text[], sns2 text[],
    PRIMARY KEY (way, kind, size, number)
);

CREATE FUNCTION public.run_batch(which_way text, which_kind text, which_size integer, which_number integer, wanted text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    sns1 text[];
    sns2 text[];
    given widgets.port_type[] := array_fill('P'::widgets.port_type, ARRAY[which_size]);
    outcomes text[];
BEGIN
    SELECT batch.sns1, batch.sns2 INTO STRICT sns1, sns2
    FROM public.batches batch
    WHERE way = which_way AND number = which_number AND size = which_size
        AND kind = CASE WHEN which_kind IN ('associate', 'part') THEN 'pairs' WHEN which_kind IN ('add', 'lookup') THEN 'all'
            ELSE which_kind END;
    IF which_kind = 'add' THEN
        SELECT add_outcomes INTO outcomes
        FROM widgets.apply_batch(sns1, array_fill('a widget of the bench'::text, ARRAY[which_size]), given,
            array_fill('R'::widgets.port_type, ARRAY[which_size]), array_fill(NULL::widgets.port_type, ARRAY[which_size]),
            '{}', '{}', '{}', '{}', '{}', false, NULL, NULL, NULL, NULL, NULL, NULL);
    ELSIF which_kind = 'lookup' THEN
        SELECT array_agg('ok'::text) INTO outcomes FROM widgets.lookup_widgets(sns1);
    ELSIF which_kind IN ('associate', 'part') THEN
        SELECT pair_outcomes INTO outcomes
        FROM widgets.apply_batch('{}', '{}', '{}', '{}', '{}', '{}', sns1, sns2, given,
            array_fill(which_kind = 'associate', ARRAY[which_size]), false, NULL, NULL, NULL, NULL, NULL, NULL);
    ELSE
        SELECT remove_outcomes INTO outcomes
        FROM widgets.apply_batch('{}', '{}', '{}', '{}', '{}', sns1, '{}', '{}', '{}', '{}', false,
            NULL, NULL, NULL, NULL, NULL, NULL);
    END IF;
    IF outcomes IS DISTINCT FROM array_fill(wanted, ARRAY[which_size]) THEN
        RAISE EXCEPTION '% by % of %: %', which_kind, which_way, which_size, outcomes;
    END IF;
END
$$;
