-- Batches of additions: they write first and look up nothing, unless serial numbers were taken recently.
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

SELECT is(pg_temp.adds('{B,A,C}', false), '{ok,ok,ok}', 'all are added');
SELECT is(pg_temp.searches(), 0::bigint, 'and nothing is looked at for it');
SELECT is(pg_temp.adds('{D,A,E,C}', false), '{ok,23505,ok,23505}', 'what is taken is refused alone');
SELECT is(current_setting('widgets.look_first'), '64', 'after which it looks first');
SELECT is(pg_temp.adds('{F,G}', false), '{ok,ok}', 'whatever it finds');
SELECT is(current_setting('widgets.look_first'), '63', 'for 64 batches');
SELECT set_config('widgets.look_first', '0', false);
SELECT is(pg_temp.adds('{H,A}', true), '{ok,23505}', 'with locks it always looks');
SELECT set_config('widgets.look_first', 'what somebody set', false);
SELECT is(pg_temp.adds('{I,H}', false), '{ok,23505}', 'what is no number of batches is none');
SELECT is((SELECT string_agg(serial_number, '' ORDER BY serial_number) FROM widgets.widgets), 'ABCDEFGHI',
    'each is there once');
SELECT is((SELECT count(*) FROM widgets.widgets WHERE port1 = 'P' AND num_nonnulls(port2, port3) = 0), 9::bigint,
    'with its slots');
SELECT * FROM finish();
ROLLBACK;
