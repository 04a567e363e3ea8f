-- The four functions and the lookup, called one by one: outcomes, codes, messages, and the order of refusals.
BEGIN;
SET search_path = public, pg_catalog;
SELECT plan(40);
-- The role that PostgREST uses.
SET LOCAL ROLE web_anon;

SELECT lives_ok($$SELECT widgets.add_widget('A', 'one', '{P,Q,Q}')$$, 'a widget is added');
SELECT lives_ok($$SELECT widgets.add_widget('B', '', '{P,Q}')$$, 'a name may be empty');
SELECT lives_ok($$SELECT widgets.add_widget('C', 'one', '{}')$$, 'a widget may have no slots');
SELECT throws_ok($$SELECT widgets.add_widget('A', 'two', '{}')$$, '23505',
    'duplicate key value violates unique constraint "widgets_serial_number_key"', 'a taken serial number is refused');
SELECT throws_ok($$SELECT widgets.add_widget(NULL, 'x', '{}')$$, '23502',
    'null value in argument "widget_sn" violates not-null constraint', 'a serial number must not be null');
SELECT throws_ok($$SELECT widgets.add_widget('X', NULL, '{}')$$, '23502',
    'null value in argument "widget_name" violates not-null constraint', 'a name must not be null');
SELECT throws_ok($$SELECT widgets.add_widget('X', 'x', NULL)$$, '23502',
    'null value in argument "slots" violates not-null constraint', 'slots must not be null');
SELECT throws_ok($$SELECT widgets.add_widget('X', 'x', '{P,NULL}')$$, '23502',
    'null value in argument "slots" violates not-null constraint', 'no slot may be null');
SELECT throws_ok($$SELECT widgets.add_widget('X', 'x', '{P,z,NULL}')$$, '22P02',
    'invalid input value for enum widgets.port_type: "z"', 'the error names the first invalid port type');
SELECT throws_ok($$SELECT widgets.add_widget('X', 'x', '{{P},{Q}}')$$, '22P02',
    'argument "slots" must be an array of port types', 'slots must be an array of one dimension');
SELECT throws_ok($$SELECT widgets.add_widget('', 'x', '{P,Q,R,P}')$$, 'WG006',
    'a widget has at most 3 slots, 4 were given', 'the number of slots is checked before the lengths of texts');
SELECT throws_ok($$SELECT widgets.add_widget('', repeat('x', 1025), '{}')$$, 'WG007',
    'widget_sn must be at least 1 byte long, 0 were given', 'a serial number must not be empty');
SELECT throws_ok($$SELECT widgets.add_widget(repeat('é', 128), 'x', '{}')$$, 'WG007',
    'widget_sn must be at most 255 bytes long, 256 were given', 'a serial number is limited in bytes');
SELECT throws_ok($$SELECT widgets.add_widget('A', repeat('x', 1025), '{}')$$, 'WG007',
    'widget_name must be at most 1024 bytes long, 1025 were given', 'a name is limited in bytes');
SELECT lives_ok($$SELECT widgets.add_widget(repeat('x', 255), repeat('x', 1024), '{}')$$,
    'the limits are inclusive');
SELECT lives_ok($$SELECT widgets.add_widget('a', 'one', '{P}')$$, 'serial numbers are case-sensitive');

SELECT throws_ok($$SELECT widgets.associate_widgets('A', NULL, 'P')$$, '23502',
    'null value in argument "widget2_sn" violates not-null constraint', 'a serial number of a pair must not be null');
SELECT throws_ok($$SELECT widgets.associate_widgets('A', 'B', NULL)$$, '23502',
    'null value in argument "port" violates not-null constraint', 'a port must not be null');
SELECT throws_ok($$SELECT widgets.associate_widgets('', '', 'P')$$, 'WG007',
    'widget1_sn must be at least 1 byte long, 0 were given', 'the lengths of serial numbers are checked first');
SELECT throws_ok($$SELECT widgets.associate_widgets('X', 'X', 'P')$$, 'WG005',
    'Widget with serial number X cannot be associated with itself',
    'an association with itself is refused before a lookup');
SELECT throws_ok($$SELECT widgets.associate_widgets('X', 'Y', 'P')$$, 'WG001',
    'Widget with serial number X does not exist', 'a missing first widget is reported');
SELECT throws_ok($$SELECT widgets.associate_widgets('C', 'Y', 'P')$$, 'WG001',
    'Widget with serial number Y does not exist', 'a missing second widget is reported before a missing free slot');
SELECT throws_ok($$SELECT widgets.associate_widgets('A', 'B', 'R')$$, 'WG002',
    'Widget with serial number A has no free slot of port R',
    'if neither widget has a free slot, the first is reported');
SELECT throws_ok($$SELECT widgets.associate_widgets('A', 'C', 'P')$$, 'WG002',
    'Widget with serial number C has no free slot of port P', 'a second widget without a free slot is reported');
SELECT lives_ok($$SELECT widgets.associate_widgets('A', 'B', 'Q')$$, 'two widgets are associated');
SELECT results_eq(
    $$SELECT serial_number, name, slots::text FROM widgets.lookup_widget('A')$$,
    $$VALUES ('A'::text, 'one'::text, '[{"port" : "P", "peer" : null}, '
        '{"port" : "Q", "peer" : "B"}, {"port" : "Q", "peer" : null}]')$$,
    'the association uses the first free slot, and a lookup shows it');
SELECT throws_ok($$SELECT widgets.associate_widgets('B', 'A', 'Q')$$, 'WG003',
    'Widgets with serial numbers B and A are already associated on port Q',
    'an existing association is reported before a missing free slot');
SELECT lives_ok($$SELECT widgets.associate_widgets('B', 'A', 'P')$$,
    'two widgets may be associated once for each port');
SELECT throws_ok($$SELECT widgets.associate_widgets('a', 'B', 'P')$$, 'WG002',
    'Widget with serial number B has no free slot of port P', 'a slot in use is not free');

SELECT throws_ok($$SELECT widgets.remove_association('X', 'Y', 'P')$$, 'WG001',
    'Widget with serial number X does not exist', 'removing an association reports a missing first widget');
SELECT throws_ok($$SELECT widgets.remove_association('A', 'C', 'P')$$, 'WG004',
    'Widgets with serial numbers A and C are not associated on port P', 'removing a missing association is refused');
SELECT lives_ok($$SELECT widgets.remove_association('A', 'B', 'P')$$, 'an association is removed');
SELECT throws_ok($$SELECT widgets.remove_association('A', 'B', 'P')$$, 'WG004',
    'Widgets with serial numbers A and B are not associated on port P', 'an association cannot be removed twice');

SELECT throws_ok($$SELECT widgets.remove_widget(NULL)$$, '23502',
    'null value in argument "widget_sn" violates not-null constraint', 'removing a widget needs a serial number');
SELECT throws_ok($$SELECT widgets.remove_widget('')$$, 'WG007',
    'widget_sn must be at least 1 byte long, 0 were given', 'removing a widget refuses an empty serial number');
SELECT throws_ok($$SELECT widgets.remove_widget('X')$$, 'WG001',
    'Widget with serial number X does not exist', 'removing a missing widget is refused');
SELECT lives_ok($$SELECT widgets.remove_widget('A')$$, 'a widget is removed');
SELECT results_eq($$SELECT slots::text FROM widgets.lookup_widget('B')$$,
    $$VALUES ('[{"port" : "P", "peer" : null}, {"port" : "Q", "peer" : null}]')$$,
    'the slots of its peers are free again');

-- What PostgREST sends for POST /rpc/associate_widgets if the schema is exposed.
SELECT lives_ok($$
    WITH pgrst_args AS (
        SELECT * FROM json_to_record('{"widget1_sn":"a","widget2_sn":"B","port":"P"}')
            AS _ (widget1_sn text, widget2_sn text, port widgets.port_type)
    )
    SELECT pgrst_call.* FROM pgrst_args, LATERAL widgets.associate_widgets(
        widget1_sn := pgrst_args.widget1_sn, widget2_sn := pgrst_args.widget2_sn,
        port := pgrst_args.port) pgrst_call$$,
    'PostgREST can call a function with named arguments');
SELECT throws_ok($$
    SELECT * FROM json_to_record('{"port":"p"}') AS _ (port widgets.port_type)$$, '22P02',
    'invalid input value for enum widgets.port_type: "p"', 'a port type in lower case is invalid');
SELECT * FROM finish();
ROLLBACK;
