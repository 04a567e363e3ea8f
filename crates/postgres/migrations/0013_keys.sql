-- A key is said to be in use (WG409) only if another transaction holds it. So far any wait of more than 2 ms while keys
-- were claimed counted as that, also one for the table itself. Such a batch now fails with 55P03 and is sent again.
CREATE OR REPLACE FUNCTION widgets.apply_batch(
    add_sns text[], add_names text[], add_ports1 widgets.port_type[],
    add_ports2 widgets.port_type[], add_ports3 widgets.port_type[],
    remove_sns text[],
    pair_sns1 text[], pair_sns2 text[], pair_ports widgets.port_type[], pair_associates boolean[],
    lock_first boolean, add_by text[], remove_by text[], pair_by text[],
    keys bytea[], requests bytea[], places integer[],
    OUT add_outcomes text[], OUT remove_outcomes text[], OUT pair_outcomes text[],
    OUT store bigint, OUT epoch integer, OUT newest bigint
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '25ms'
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    adds CONSTANT integer := cardinality(add_sns);
    removals CONSTANT integer := cardinality(remove_sns);
    pairs CONSTANT integer := cardinality(pair_sns1);
    key_segment smallint;
    known integer[];                -- the places of those that are not decided,
    known_outcomes text[];          -- and what they come to
    claimed record;
    in_use integer := 0;
    waited_for text;
    outcomes text[];
    recorded boolean;
BEGIN
    IF keys IS NOT NULL THEN
        LOCK TABLE widgets.keys_turn IN ACCESS SHARE MODE;
        SELECT last_value INTO key_segment FROM widgets.keys_segment;
        SELECT array_agg(given.place),
            array_agg(CASE WHEN substr(kept.request, 1, 16) = substr(given.request, 1, 16)
                THEN '=' || kept.outcome ELSE 'WG422' END)
        INTO known, known_outcomes
        FROM unnest(keys, requests, places) AS given (key, request, place)
        JOIN widgets.idempotency_keys kept ON kept.key = given.key;
        IF lock_first THEN
            -- The others are claimed before anything is decided: a key that somebody else is just using
            -- must not hold up the whole batch.
            PERFORM set_config('lock_timeout', '2ms', true);
            BEGIN
                INSERT INTO widgets.idempotency_keys (segment, key, request, outcome)
                SELECT key_segment, given.key, given.request, 'pending'
                FROM unnest(keys, requests, places) AS given (key, request, place)
                WHERE given.place <> ALL (coalesce(known, '{}'));
            EXCEPTION WHEN lock_not_available OR unique_violation THEN
                FOR claimed IN
                    SELECT * FROM unnest(keys, requests, places) AS given (key, request, place)
                    WHERE given.place <> ALL (coalesce(known, '{}'))
                LOOP
                    -- Each key in use costs a wait, so only twenty are looked for; the rest are taken to be in use.
                    IF in_use < 20 THEN
                        BEGIN
                            INSERT INTO widgets.idempotency_keys (segment, key, request, outcome)
                            VALUES (key_segment, claimed.key, claimed.request, 'pending');
                            CONTINUE;
                        EXCEPTION
                            WHEN unique_violation THEN
                                NULL;
                            WHEN lock_not_available THEN
                                -- Only a wait for a transaction that holds the key names the index, in every language.
                                -- Any other wait, as for a table that is locked or is being extended, says nothing
                                -- about the key.
                                GET STACKED DIAGNOSTICS waited_for = PG_EXCEPTION_CONTEXT;
                                IF waited_for !~ 'idempotency_keys_[0-9]+_pkey' THEN
                                    RAISE;
                                END IF;
                        END;
                    END IF;
                    in_use := in_use + 1;
                    known := known || claimed.place;
                    known_outcomes := known_outcomes || 'WG409'::text;
                END LOOP;
            END;
            PERFORM set_config('lock_timeout', '25ms', true);
        END IF;
    END IF;

    IF known IS NULL THEN
        SELECT decided.add_outcomes, decided.remove_outcomes, decided.pair_outcomes, decided.recorded
        INTO add_outcomes, remove_outcomes, pair_outcomes, recorded
        FROM widgets.decide_batch(add_sns, add_names, add_ports1, add_ports2, add_ports3, remove_sns,
            pair_sns1, pair_sns2, pair_ports, pair_associates, lock_first, add_by, remove_by, pair_by) decided;
    ELSE
        SELECT decided.add_outcomes, decided.remove_outcomes, decided.pair_outcomes, decided.recorded
        INTO add_outcomes, remove_outcomes, pair_outcomes, recorded
        FROM (
            SELECT coalesce(array_agg(sn ORDER BY i), '{}') AS sns, coalesce(array_agg(name ORDER BY i), '{}') AS names,
                coalesce(array_agg(port1 ORDER BY i), '{}') AS ports1,
                coalesce(array_agg(port2 ORDER BY i), '{}') AS ports2,
                coalesce(array_agg(port3 ORDER BY i), '{}') AS ports3, array_agg(by ORDER BY i) AS by
            FROM unnest(add_sns, add_names, add_ports1, add_ports2, add_ports3, add_by)
                WITH ORDINALITY AS given (sn, name, port1, port2, port3, by, i)
            WHERE i <> ALL (known)
        ) added, (
            SELECT coalesce(array_agg(sn ORDER BY i), '{}') AS sns, array_agg(by ORDER BY i) AS by
            FROM unnest(remove_sns, remove_by) WITH ORDINALITY AS given (sn, by, i)
            WHERE adds + i <> ALL (known)
        ) removed, (
            SELECT coalesce(array_agg(sn1 ORDER BY i), '{}') AS sns1, coalesce(array_agg(sn2 ORDER BY i), '{}') AS sns2,
                coalesce(array_agg(port ORDER BY i), '{}') AS ports,
                coalesce(array_agg(associates ORDER BY i), '{}') AS associates, array_agg(by ORDER BY i) AS by
            FROM unnest(pair_sns1, pair_sns2, pair_ports, pair_associates, pair_by)
                WITH ORDINALITY AS given (sn1, sn2, port, associates, by, i)
            WHERE adds + removals + i <> ALL (known)
        ) paired,
        LATERAL widgets.decide_batch(added.sns, added.names, added.ports1, added.ports2, added.ports3,
            removed.sns, paired.sns1, paired.sns2, paired.ports, paired.associates, lock_first,
            added.by, removed.by, paired.by) decided;
        add_outcomes := widgets.merge_outcomes(adds, 0, add_outcomes, known, known_outcomes);
        remove_outcomes := widgets.merge_outcomes(removals, adds, remove_outcomes, known, known_outcomes);
        pair_outcomes := widgets.merge_outcomes(pairs, adds + removals, pair_outcomes, known, known_outcomes);
    END IF;

    IF keys IS NOT NULL THEN
        outcomes := coalesce(add_outcomes, '{}') || coalesce(remove_outcomes, '{}') || coalesce(pair_outcomes, '{}');
        IF lock_first THEN
            UPDATE widgets.idempotency_keys kept SET outcome = outcomes[given.place]
            FROM unnest(keys, places) AS given (key, place)
            WHERE kept.key = given.key AND kept.outcome = 'pending' AND outcomes[given.place] <> 'locked';
            DELETE FROM widgets.idempotency_keys kept USING unnest(keys, places) AS given (key, place)
            WHERE kept.key = given.key AND kept.outcome = 'pending' AND outcomes[given.place] = 'locked';
        ELSE
            INSERT INTO widgets.idempotency_keys (segment, key, request, outcome)
            SELECT key_segment, given.key, given.request, outcomes[given.place]
            FROM unnest(keys, requests, places) AS given (key, request, place)
            WHERE given.place <> ALL (coalesce(known, '{}')) AND outcomes[given.place] <> 'locked';
        END IF;
    END IF;

    IF recorded THEN
        SET CONSTRAINTS widgets.changes_are_numbered IMMEDIATE;
        SELECT identity INTO store FROM widgets.changes_store;
        SELECT max(lives.epoch) INTO epoch FROM widgets.changes_epochs lives;
        SELECT last_value INTO newest FROM widgets.changes_number;
    END IF;
END
$$;
