-- The rights of the roles, and the constraints that apply to everybody.
BEGIN;
SET search_path = public, pg_catalog;
SELECT plan(27);

SELECT is(
    (SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc p
     WHERE p.pronamespace = 'widgets'::regnamespace
        AND has_function_privilege('web_anon', p.oid, 'EXECUTE')),
    'add_widget associate_widgets lookup_widget remove_association remove_widget slots_of',
    'web_anon may execute only the five functions of the API and the one that the view for lists uses');
SELECT is(
    (SELECT count(*) FROM pg_class
     WHERE relnamespace = 'widgets'::regnamespace AND relkind IN ('r', 'v') AND (
        has_table_privilege('web_anon', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
        OR has_table_privilege('authenticator', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'))),
    0::bigint, 'web_anon and authenticator have no rights on tables');
SELECT ok(NOT has_schema_privilege('web_anon', 'widgets', 'CREATE')
    AND NOT has_schema_privilege('authenticator', 'widgets', 'CREATE'),
    'web_anon and authenticator may not create anything in the schema');
SELECT is(
    (SELECT count(*) FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) acl
     WHERE p.pronamespace = 'widgets'::regnamespace AND acl.grantee = 0),
    0::bigint, 'PUBLIC may execute no function');
SELECT is(
    (SELECT count(*) FROM pg_proc WHERE pronamespace = 'widgets'::regnamespace AND prosecdef
        AND NOT coalesce(proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp']),
    0::bigint, 'every SECURITY DEFINER function has a fixed search_path');
SELECT ok((SELECT NOT rolinherit AND NOT rolsuper AND rolcanlogin FROM pg_roles
    WHERE rolname = 'authenticator'), 'authenticator can log in, but inherits no rights');
SELECT ok(pg_has_role('authenticator', 'web_anon', 'MEMBER'), 'authenticator can become web_anon');
SELECT ok((SELECT NOT rolcanlogin FROM pg_roles WHERE rolname = 'web_anon'), 'web_anon cannot log in');

SET LOCAL ROLE web_anon;
SELECT throws_ok('SELECT FROM widgets.widgets', '42501', NULL, 'web_anon may not read tables');
SELECT throws_ok($$SELECT widgets.lookup_widgets('{A}')$$, '42501', NULL,
    'web_anon may not look up batches of widgets');
SELECT throws_ok($$SELECT widgets.apply_operations('{}','{}','{}','{}','{}','{}','{}','{}','{}','{}',false)$$,
    '42501', NULL, 'web_anon may not apply batches of operations');
RESET ROLE;

-- The constraints apply to every statement, including those of the owner.
SELECT widgets.add_widget('A', '', '{P,Q}'), widgets.add_widget('B', '', '{P,P}'),
    widgets.add_widget('C', '', '{P}'), widgets.add_widget('D', '', '{P,P}'),
    widgets.associate_widgets('A', 'B', 'P') \g /dev/null
SELECT throws_ok($$UPDATE widgets.widgets SET peer1 = NULL WHERE serial_number = 'A'$$, '23503', NULL,
    'half an association cannot be removed');
SELECT throws_ok($$UPDATE widgets.widgets SET peer1 = 'B' WHERE serial_number = 'C'$$, '23503', NULL,
    'half an association cannot be added');
SELECT throws_ok($$UPDATE widgets.widgets SET peer1 = 'C' WHERE serial_number = 'A'$$, '23503', NULL,
    'half an association cannot be moved to another widget');
SELECT throws_ok($$UPDATE widgets.widgets SET
    peer1 = CASE serial_number WHEN 'A' THEN 'C' END WHERE serial_number IN ('A', 'B')$$, '23503', NULL,
    'one half cannot be removed while the other is moved');
SELECT throws_ok($$UPDATE widgets.widgets SET peer1 = CASE serial_number WHEN 'A' THEN 'D' ELSE 'A' END,
    peer2 = CASE serial_number WHEN 'D' THEN 'A' END WHERE serial_number IN ('A', 'D')$$, '23514', NULL,
    'two widgets cannot be associated twice on one port');
SELECT throws_ok($$UPDATE widgets.widgets SET peer1 = 'C' WHERE serial_number = 'C'$$, '23514', NULL,
    'a widget cannot be associated with itself');
SELECT throws_ok($$UPDATE widgets.widgets SET
    peer2 = CASE serial_number WHEN 'A' THEN 'C' ELSE 'A' END WHERE serial_number IN ('A', 'C')$$,
    '23514', NULL, 'a peer cannot be stored without a slot');
SELECT throws_ok($$UPDATE widgets.widgets SET
    peer1 = CASE serial_number WHEN 'D' THEN 'A' ELSE peer1 END,
    peer2 = CASE serial_number WHEN 'A' THEN 'D' END WHERE serial_number IN ('A', 'D')$$,
    '23503', NULL, 'the two halves cannot be on different ports');
SELECT throws_ok($$DELETE FROM widgets.widgets WHERE serial_number = 'A'$$, '23503', NULL,
    'a widget with a peer cannot be deleted alone');
SELECT throws_ok($$INSERT INTO widgets.widgets VALUES ('X', '', 'P', NULL, NULL, 'A')$$, '23503', NULL,
    'a widget cannot be inserted with a peer alone');
SELECT lives_ok($$UPDATE widgets.widgets SET peer1 = NULL WHERE serial_number IN ('A', 'B')$$,
    'both halves can be removed together');
SELECT throws_ok($$UPDATE widgets.widgets SET port1 = 'R' WHERE serial_number = 'A'$$, '23001', NULL,
    'the port of a slot cannot be changed');
SELECT throws_ok($$INSERT INTO widgets.widgets VALUES ('X', '', 'P', NULL, 'P')$$, '23514', NULL,
    'slots cannot have a gap');
SELECT throws_ok($$UPDATE widgets.widgets SET serial_number = 'Z' WHERE serial_number = 'A'$$, '23001',
    NULL, 'a serial number cannot be changed');
SELECT throws_ok($$INSERT INTO widgets.widgets VALUES ('', '')$$, '23514', NULL,
    'a serial number cannot be empty');
SELECT throws_ok($$INSERT INTO widgets.widgets VALUES ('Y', repeat('x', 1025))$$, '23514', NULL,
    'a name cannot be too long');
SELECT * FROM finish();
ROLLBACK;
