-- Roles and rights. Every `widgets migrate` runs this again, so that roles created later get their rights.
--
-- Roles belong to the whole server. A missing role is created if the migrating role may do so (CREATEROLE); otherwise a
-- warning says what an administrator must do, and everything that can be granted is granted. This sets no password: give
-- authenticator one, or admit it in pg_hba.conf.

REVOKE ALL ON SCHEMA widgets FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA widgets FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA widgets FROM PUBLIC;
REVOKE ALL ON SCHEMA widgets_lists FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA widgets_lists FROM PUBLIC;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'web_anon') THEN
        CREATE ROLE web_anon NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'authenticator') THEN
        CREATE ROLE authenticator LOGIN NOINHERIT;
    END IF;
    IF NOT pg_has_role('authenticator', 'web_anon', 'MEMBER') THEN
        GRANT web_anon TO authenticator;
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'the roles web_anon and authenticator are not complete, and % may not change that: %',
        current_user, SQLERRM
        USING HINT = 'As an administrator: CREATE ROLE web_anon NOLOGIN; CREATE ROLE authenticator '
            'LOGIN NOINHERIT; GRANT web_anon TO authenticator; then migrate again.';
END
$$;

DO $$
BEGIN
    -- The role of callers without a token, through PostgREST or psql.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'web_anon') THEN
        GRANT USAGE ON SCHEMA widgets TO web_anon;
        GRANT EXECUTE ON FUNCTION
            widgets.add_widget(text, text, text[]),
            widgets.remove_widget(text),
            widgets.associate_widgets(text, text, widgets.port_type),
            widgets.remove_association(text, text, widgets.port_type),
            widgets.lookup_widget(text)
        TO web_anon;
        GRANT USAGE ON SCHEMA widgets_lists TO web_anon;
        GRANT SELECT ON widgets_lists.widgets, widgets_lists.slots TO web_anon;
        -- A role that reads a view needs the right to call the functions in it.
        GRANT EXECUTE ON FUNCTION widgets.slots_of(widgets.port_type, text, widgets.port_type, text,
            widgets.port_type, text) TO web_anon;
    END IF;
    -- The service.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'authenticator') THEN
        GRANT USAGE ON SCHEMA widgets TO authenticator;
        GRANT EXECUTE ON FUNCTION
            widgets.apply_operations(text[], text[], widgets.port_type[], widgets.port_type[], widgets.port_type[],
                text[], text[], text[], widgets.port_type[], boolean[], boolean),
            widgets.apply_batch(text[], text[], widgets.port_type[], widgets.port_type[], widgets.port_type[],
                text[], text[], text[], widgets.port_type[], boolean[], boolean, text[], text[], text[],
                bytea[], bytea[], integer[]),
            widgets.read_changes(bigint, integer),
            widgets.changes_state(),
            widgets.keep_changes(integer, bigint),
            widgets.keep_keys(integer, bigint),
            widgets.lookup_widgets(text[]),
            widgets.estimated_counts(),
            widgets.estimated_free_slots(),
            widgets.list_rows(text, jsonb, text[], boolean, bigint, integer, boolean),
            widgets.neighbourhood(text, integer, integer),
            widgets.schema_version(),
            widgets.oldest_program()
        TO authenticator;
    END IF;
END
$$;
