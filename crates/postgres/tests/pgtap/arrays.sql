-- Every argument may be an array whose first index is not 1. Only the order of the elements counts.
BEGIN;
SET search_path = public, pg_catalog;
SELECT plan(9);

SELECT lives_ok($$SELECT widgets.add_widget('A', '', '[5:7]={P,Q,R}'::text[])$$, 'the first index may be 5');
SELECT lives_ok($$SELECT widgets.add_widget('B', '', '[-1:0]={Q,P}'::text[])$$, 'the first index may be -1');
SELECT lives_ok(
    $$SELECT widgets.add_widget('C', '', '[2147483644:2147483646]={R,R,P}'::text[])$$,
    'the last index may be the highest possible one');
SELECT throws_ok($$SELECT widgets.add_widget('X', '', '[0:3]={P,P,P,P}'::text[])$$, 'WG006',
    'a widget has at most 3 slots, 4 were given', 'the number of slots is limited whatever the indices');
SELECT throws_ok($$SELECT widgets.add_widget('X', '', '[0:1]={P,x}'::text[])$$, '22P02',
    'invalid input value for enum widgets.port_type: "x"', 'port types are checked whatever the indices');
SELECT results_eq(
    $$SELECT serial_number COLLATE "default", array_to_string(ports, '') FROM widgets.lookup_widgets('[3:5]={A,B,C}')
        ORDER BY serial_number$$,
    $$VALUES ('A'::text, 'PQR'::text), ('B', 'QP'), ('C', 'RRP')$$,
    'every slot is stored, and a lookup accepts such an array');

SELECT results_eq(
    $$SELECT * FROM widgets.apply_operations('[2:3]={D,A}', '[3:4]={d,a}', '[4:5]={P,P}', '[5:6]={Q,Q}',
        '[6:7]={NULL,R}', '[0:1]={C,X}', '[2:3]={A,X}', '[3:4]={B,A}', '[4:5]={P,P}', '[5:6]={t,t}', false)$$,
    $$VALUES ('{ok,23505}'::text[], '{ok,WG001}'::text[], '{ok,WG001/1}'::text[])$$,
    'every argument of a batch may be such an array');
SELECT results_eq(
    $$SELECT * FROM widgets.apply_operations('[2:2]={E}', '[3:3]={e}', '[4:4]={P}', '[5:5]={Q}', '[6:6]={R}',
        '[0:1]={D,X}', '[2:2]={A}', '[3:3]={B}', '[4:4]={P}', '[5:5]={f}', true)$$,
    $$VALUES ('{ok}'::text[], '{ok,WG001}'::text[], '{ok}'::text[])$$,
    'the same is true of a batch that locks first');
SELECT results_eq(
    $$SELECT string_agg(widget_sn || ordinal || port || coalesce(peer_sn, ''), ' '
        ORDER BY widget_sn, ordinal) COLLATE "default" FROM widgets.slots$$,
    $$VALUES ('A1P A2Q A3R B1Q B2P E1P E2Q E3R'::text)$$, 'the batches have stored the right slots and peers');
SELECT * FROM finish();
ROLLBACK;
