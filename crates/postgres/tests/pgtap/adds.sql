-- A batch of additions inserts without looking first, unless a recent batch found serial numbers taken.
BEGIN;
SET search_path = public, pg_catalog;
SELECT plan(10);

CREATE FUNCTION pg_temp.adds(sns text[], lock_first boolean) RETURNS text[] LANGUAGE sql AS $$
    SELECT add_outcomes FROM widgets.apply_operations(sns, sns, array_fill('P'::widgets.port_type, ARRAY[cardinality(sns)]),
        array_fill(NULL::widgets.port_type, ARRAY[cardinality(sns)]),
        array_fill(NULL::widgets.port_type, ARRAY[cardinality(sns)]), '{}', '{}', '{}', '{}', '{}', lock_first)
$$;
-- Returns how often this transaction has searched the table.
CREATE FUNCTION pg_temp.searches() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT idx_scan FROM pg_stat_xact_user_tables WHERE relid = 'widgets.widgets'::regclass
$$;

SELECT is(pg_temp.adds('{B,A,C}', false), '{ok,ok,ok}', 'all widgets are added');
SELECT is(pg_temp.searches(), 0::bigint, 'the additions do not search the table');
SELECT is(pg_temp.adds('{D,A,E,C}', false), '{ok,23505,ok,23505}', 'only the taken serial numbers are refused');
SELECT is(current_setting('widgets.look_first'), '64', 'after a refusal, the next 64 batches look first');
SELECT is(pg_temp.adds('{F,G}', false), '{ok,ok}', 'a batch that looks first adds new widgets');
SELECT is(current_setting('widgets.look_first'), '63', 'each batch that looks first reduces the count');
SELECT set_config('widgets.look_first', '0', false);
SELECT is(pg_temp.adds('{H,A}', true), '{ok,23505}', 'a batch that locks first always looks first');
SELECT set_config('widgets.look_first', 'what somebody set', false);
SELECT is(pg_temp.adds('{I,H}', false), '{ok,23505}', 'a setting that is not a number counts as none');
SELECT is((SELECT string_agg(serial_number, '' ORDER BY serial_number) FROM widgets.widgets), 'ABCDEFGHI',
    'each widget was added exactly once');
SELECT is((SELECT count(*) FROM widgets.widgets WHERE port1 = 'P' AND num_nonnulls(port2, port3) = 0), 9::bigint,
    'each widget has its slots');
SELECT * FROM finish();
ROLLBACK;
