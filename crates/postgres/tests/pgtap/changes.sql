-- What the functions write to the feed of changes, and who may read it.
BEGIN;
SET search_path = public, pg_catalog;
SELECT plan(20);

SELECT is(widgets.turn_on_changes(), true, 'turning the feed on reports that it was off');
SELECT is(widgets.turn_on_changes(), false, 'turning it on again reports that it was on');
-- This transaction is rolled back, so its changes get their numbers immediately instead of at the commit.
SET CONSTRAINTS widgets.changes_are_numbered IMMEDIATE;
SELECT newest AS start FROM widgets.changes_state() \gset

SET LOCAL ROLE web_anon;
SELECT throws_ok('SELECT widgets.read_changes(0, 1)', '42501', NULL, 'web_anon may not read the feed');
SELECT throws_ok('SELECT widgets.turn_off_changes()', '42501', NULL, 'web_anon may not turn the feed off');
SELECT throws_ok('SELECT widgets.keep_changes(0, 0)', '42501', NULL, 'web_anon may not remove changes');
SELECT throws_ok('LOCK TABLE widgets.changes_turn IN EXCLUSIVE MODE', '42501', NULL,
    'web_anon may not take the lock that orders commits');
SET LOCAL request.jwt.claims = '{"sub": "ann"}';
SELECT lives_ok($$SELECT widgets.add_widget('A', 'one', '{P,Q}')$$, 'a widget is added');
SELECT lives_ok($$SELECT widgets.add_widget('B', 'two', '{Q,R,P}')$$, 'another widget is added');
SELECT throws_ok($$SELECT widgets.add_widget('B', 'three', '{}')$$, '23505', NULL, 'a taken serial number is refused');
SELECT lives_ok($$SELECT widgets.associate_widgets('A', 'B', 'P')$$, 'the widgets are associated on port P');
SELECT lives_ok($$SELECT widgets.associate_widgets('B', 'A', 'Q')$$, 'the widgets are also associated on port Q');
SELECT lives_ok($$SELECT widgets.remove_association('A', 'B', 'P')$$, 'the association on port P is removed');
SELECT lives_ok($$SELECT widgets.remove_widget('A')$$, 'the first widget is removed');
RESET ROLE;

SELECT results_eq(
    format('SELECT first - %s, add_sns, add_names, add_ports1 || add_ports2 || add_ports3, add_by
        FROM widgets.read_changes(%1$s, 100) WHERE add_sns IS NOT NULL', :start),
    $$VALUES (1::bigint, '{A}'::text[], '{one}'::text[], '{P,Q,NULL}'::text[], '{ann}'::text[]),
        (2, '{B}', '{two}', '{Q,R,P}', '{ann}')$$, 'the feed has the additions, but not the refused one');
SELECT results_eq(
    format('SELECT first - %s, pair_sns1, pair_slots1, pair_sns2, pair_slots2, pair_ports, pair_associates, pair_by
        FROM widgets.read_changes(%1$s, 100) WHERE pair_sns1 IS NOT NULL', :start),
    $$VALUES (3::bigint, '{A}'::text[], '{1}'::integer[], '{B}'::text[], '{3}'::integer[], '{P}'::text[],
            '{t}'::boolean[], '{ann}'::text[]),
        (4, '{B}', '{1}', '{A}', '{2}', '{Q}', '{t}', '{ann}'),
        (5, '{A}', '{1}', '{B}', '{3}', '{P}', '{f}', '{ann}')$$,
    'the feed has the associations and their removal, with slots');
SELECT results_eq(
    format('SELECT first - %s, remove_sns, freed_of, freed_sns, freed_slots, remove_by
        FROM widgets.read_changes(%1$s, 100) WHERE remove_sns IS NOT NULL', :start),
    $$VALUES (6::bigint, '{A}'::text[], '{1}'::integer[], '{B}'::text[], '{1}'::integer[], '{ann}'::text[])$$,
    'the feed has the removal, with the slots that it frees');
SELECT is((SELECT newest - :start FROM widgets.changes_state()), 6::bigint, 'the feed has six changes');
SELECT ok((SELECT array_agg(at) = array_agg(at ORDER BY at) FROM widgets.read_changes(:start, 100)),
    'the times of the changes never decrease');

-- Two widgets are removed together: the second removal does not free the slot of the widget that is already gone.
SELECT widgets.add_widget('C', '', '{P,P}'), widgets.add_widget('D', '', '{P}'), widgets.add_widget('E', '', '{P}'),
    widgets.associate_widgets('C', 'D', 'P'), widgets.associate_widgets('C', 'E', 'P') \g /dev/null
SELECT results_eq(
    $$SELECT * FROM widgets.freed_slots('{D,C}')$$,
    $$VALUES ('{1,2}'::integer[], '{C,E}'::text[], '{1,1}'::integer[])$$,
    'two widgets removed together free each slot only once');
SELECT is(widgets.turn_off_changes(), true, 'turning the feed off reports that it was on');
SELECT * FROM finish();
ROLLBACK;
