-- The functions as they run on a distributed table, with a simulated shard_of that has three groups.
BEGIN;
SET search_path = public, pg_catalog;
SELECT plan(24);
DROP TRIGGER widgets_both_halves ON widgets.widgets;
CREATE OR REPLACE FUNCTION widgets.is_distributed() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true';
-- The group is the last character, which is a digit.
CREATE OR REPLACE FUNCTION widgets.shard_of(serial_number text) RETURNS bigint LANGUAGE sql STABLE AS
    'SELECT right(serial_number, 1)::bigint % 3';

CREATE FUNCTION pg_temp.adds(sns text[], lock_first boolean) RETURNS text[] LANGUAGE sql AS $$
    SELECT add_outcomes FROM widgets.apply_operations(sns, sns, array_fill('P'::widgets.port_type, ARRAY[cardinality(sns)]),
        array_fill('Q'::widgets.port_type, ARRAY[cardinality(sns)]),
        array_fill(NULL::widgets.port_type, ARRAY[cardinality(sns)]), '{}', '{}', '{}', '{}', '{}', lock_first)
$$;
CREATE FUNCTION pg_temp.pairs(sns1 text[], sns2 text[], ports widgets.port_type[], associates boolean[], lock_first boolean)
RETURNS text[] LANGUAGE sql AS $$
    SELECT pair_outcomes FROM widgets.apply_operations('{}', '{}', '{}', '{}', '{}', '{}', sns1, sns2, ports, associates,
        lock_first)
$$;
CREATE FUNCTION pg_temp.peers() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(widget_sn || port || peer_sn, ' ' ORDER BY widget_sn, ordinal)
    FROM widgets.slots WHERE peer_sn IS NOT NULL
$$;

SELECT is(array_agg(shard || sns::text), '{"0{a0,a3}","1{a1}","2{a2}"}',
    'serial numbers are grouped by shard, each once and in order')
    FROM widgets.by_shard('{a3,a2,a0,NULL,a1,a0}');
SELECT is(pg_temp.adds('{a5,a4,a3,a2,a1,a0}', false), '{ok,ok,ok,ok,ok,ok}', 'all widgets are added');
SELECT is(pg_temp.adds('{b1,a2,b3}', false), '{ok,23505,ok}', 'only the taken serial number is refused');
SELECT is(current_setting('widgets.look_first'), '64', 'after a refusal, the next 64 batches look first');
SELECT is(pg_temp.adds('{b1,b4}', false), '{23505,ok}', 'a batch that looks first finds the taken serial number');
SELECT is(pg_temp.adds('{b4,b5}', true), '{23505,ok}', 'a batch that locks first finds it as well');

SELECT is(pg_temp.pairs('{a0,a3}', '{a1,a4}', '{P,Q}', '{t,t}', false), '{ok,ok}',
    'two pairs across three groups are associated');
SELECT is(pg_temp.peers(), 'a0Pa1 a1Pa0 a3Qa4 a4Qa3', 'both halves of each association are stored');
SELECT is(pg_temp.pairs('{a0,a3,a5}', '{a1,b9,a2}', '{P,P,P}', '{t,t,t}', false), '{WG003,WG001/2,ok}',
    'only the invalid pairs are refused');
SELECT is(current_setting('widgets.lock_first'), '64', 'after a refusal, the next 64 batches lock first');
SELECT is(pg_temp.pairs('{a0,b9,a5}', '{b1,a4,b3}', '{P,P,R}', '{t,t,t}', false),
    '{WG002/1,WG001/1,WG002/1}', 'each pair is refused for its own reason');
SELECT is(pg_temp.pairs('{b3,a3}', '{a0,a4}', '{P,P}', '{t,f}', true), '{WG002/2,WG004}',
    'a batch that locks first refuses pairs as well');
SELECT is(pg_temp.pairs('{a1,a3}', '{a0,b3}', '{Q,P}', '{t,t}', true), '{ok,ok}',
    'a batch that locks first applies valid pairs');
SELECT is(pg_temp.peers(), 'a0Pa1 a0Qa1 a1Pa0 a1Qa0 a2Pa5 a3Pb3 a3Qa4 a4Qa3 a5Pa2 b3Pa3',
    'associations use the first free slots');
SELECT is(pg_temp.pairs('{a1}', '{a0}', '{P}', '{f}', false), '{ok}', 'an association is removed');

SELECT is(remove_outcomes::text || pair_outcomes::text, '{ok,WG001,ok}{WG002/2}',
    'a batch decides pairs before it applies removals')
    FROM widgets.apply_operations('{}', '{}', '{}', '{}', '{}', '{a3,b9,a2}', '{a4}', '{b3}', '{P}', '{t}', false);
SELECT is(remove_outcomes::text || pair_outcomes::text, '{ok}{ok}',
    'a batch that locks first applies a removal and a pair')
    FROM widgets.apply_operations('{}', '{}', '{}', '{}', '{}', '{b3}', '{a4}', '{a5}', '{Q}', '{t}', true);
SELECT is(pg_temp.peers(), 'a0Qa1 a1Qa0 a4Qa5 a5Qa4', 'the peers of the removed widgets have free slots');
SELECT is(widgets.halves_balance(), 0::numeric, 'every half of an association has its counterpart');
SELECT is(array_agg(serial_number || peers::text ORDER BY serial_number), '{"a0{NULL,a1}","a5{NULL,a4}"}',
    'a lookup returns the peers')
    FROM widgets.lookup_widgets('{a5,b9,a0}');
UPDATE widgets.widgets SET peer2 = NULL WHERE serial_number = 'a5';
SELECT isnt(widgets.halves_balance(), 0::numeric, 'half an association is detected');

SELECT throws_ok($$SELECT widgets.add_widget('a0', '', '{}')$$, '23505',
    'duplicate key value violates unique constraint "widgets_serial_number_key"',
    'a single call refuses a taken serial number');
SELECT throws_ok($$SELECT widgets.associate_widgets('a0', 'a1', 'Q')$$, 'WG003',
    'Widgets with serial numbers a0 and a1 are already associated on port Q',
    'a single call refuses an existing association');
SELECT throws_ok('SELECT widgets.turn_on_changes()', '0A000', 'a distributed registry has no feed of changes',
    'the feed cannot be turned on');
SELECT * FROM finish();
ROLLBACK;
