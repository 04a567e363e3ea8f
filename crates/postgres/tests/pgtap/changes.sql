-- What the functions write to the feed, and who may read it.
BEGIN;
SET search_path = public, pg_catalog;
SELECT plan(20);

SELECT is(widgets.turn_on_changes(), true, 'it was off');
SELECT is(widgets.turn_on_changes(), false, 'and is on');
-- Numbers are assigned at once, because this transaction is rolled back.
SET CONSTRAINTS widgets.changes_are_numbered IMMEDIATE;
SELECT newest AS start FROM widgets.changes_state() \gset

SET LOCAL ROLE web_anon;
SELECT throws_ok('SELECT widgets.read_changes(0, 1)', '42501', NULL, 'web_anon does not read it');
SELECT throws_ok('SELECT widgets.turn_off_changes()', '42501', NULL, 'nor turns it off');
SELECT throws_ok('SELECT widgets.keep_changes(0, 0)', '42501', NULL, 'nor empties it');
SELECT throws_ok('LOCK TABLE widgets.changes_turn IN EXCLUSIVE MODE', '42501', NULL, 'nor holds up commits');
SET LOCAL request.jwt.claims = '{"sub": "ann"}';
SELECT lives_ok($$SELECT widgets.add_widget('A', 'one', '{P,Q}')$$, 'a widget');
SELECT lives_ok($$SELECT widgets.add_widget('B', 'two', '{Q,R,P}')$$, 'and another');
SELECT throws_ok($$SELECT widgets.add_widget('B', 'three', '{}')$$, '23505', NULL, 'which is taken');
SELECT lives_ok($$SELECT widgets.associate_widgets('A', 'B', 'P')$$, 'associated');
SELECT lives_ok($$SELECT widgets.associate_widgets('B', 'A', 'Q')$$, 'twice');
SELECT lives_ok($$SELECT widgets.remove_association('A', 'B', 'P')$$, 'parted once');
SELECT lives_ok($$SELECT widgets.remove_widget('A')$$, 'removed');
RESET ROLE;

SELECT results_eq(
    format('SELECT first - %s, add_sns, add_names, add_ports1 || add_ports2 || add_ports3, add_by
        FROM widgets.read_changes(%1$s, 100) WHERE add_sns IS NOT NULL', :start),
    $$VALUES (1::bigint, '{A}'::text[], '{one}'::text[], '{P,Q,NULL}'::text[], '{ann}'::text[]),
        (2, '{B}', '{two}', '{Q,R,P}', '{ann}')$$, 'additions, and not what was refused');
SELECT results_eq(
    format('SELECT first - %s, pair_sns1, pair_slots1, pair_sns2, pair_slots2, pair_ports, pair_associates, pair_by
        FROM widgets.read_changes(%1$s, 100) WHERE pair_sns1 IS NOT NULL', :start),
    $$VALUES (3::bigint, '{A}'::text[], '{1}'::integer[], '{B}'::text[], '{3}'::integer[], '{P}'::text[],
            '{t}'::boolean[], '{ann}'::text[]),
        (4, '{B}', '{1}', '{A}', '{2}', '{Q}', '{t}', '{ann}'),
        (5, '{A}', '{1}', '{B}', '{3}', '{P}', '{f}', '{ann}')$$, 'pairs with their slots');
SELECT results_eq(
    format('SELECT first - %s, remove_sns, freed_of, freed_sns, freed_slots, remove_by
        FROM widgets.read_changes(%1$s, 100) WHERE remove_sns IS NOT NULL', :start),
    $$VALUES (6::bigint, '{A}'::text[], '{1}'::integer[], '{B}'::text[], '{1}'::integer[], '{ann}'::text[])$$,
    'removals with the slots that they free');
SELECT is((SELECT newest - :start FROM widgets.changes_state()), 6::bigint, 'six changes');
SELECT ok((SELECT array_agg(at) = array_agg(at ORDER BY at) FROM widgets.read_changes(:start, 100)),
    'times that do not go back');

-- Two widgets that are removed together: a slot of the second that the first one's removal frees is not freed again.
SELECT widgets.add_widget('C', '', '{P,P}'), widgets.add_widget('D', '', '{P}'), widgets.add_widget('E', '', '{P}'),
    widgets.associate_widgets('C', 'D', 'P'), widgets.associate_widgets('C', 'E', 'P') \g /dev/null
SELECT results_eq(
    $$SELECT * FROM widgets.freed_slots('{D,C}')$$,
    $$VALUES ('{1,2}'::integer[], '{C,E}'::text[], '{1,1}'::integer[])$$, 'two that go together');
SELECT is(widgets.turn_off_changes(), true, 'off again');
SELECT * FROM finish();
ROLLBACK;
