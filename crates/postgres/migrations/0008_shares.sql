-- Shares of the idempotency keys that are kept: past keys_max those who use most lose theirs first.
--
-- Behind the digest of a request, which has 16 bytes, stand 8 of who asks since this migration. What programs of
-- before it write has none: all of that counts as one caller's.

-- Keys that outlive their partition, as their callers use few. Since when they were not written to any more: their
-- time is over as long after it.
ALTER TABLE widgets.idempotency_keys ADD COLUMN ended timestamptz;
CREATE TABLE widgets.idempotency_keys_0 PARTITION OF widgets.idempotency_keys
    (PRIMARY KEY (key)) FOR VALUES IN (0);

-- As before but for what is compared: the same request by another way is the same request.
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
                    BEGIN
                        -- To know that one is in use takes a wait: twenty are found out.
                        IF in_use = 20 THEN
                            RAISE lock_not_available;
                        END IF;
                        INSERT INTO widgets.idempotency_keys (segment, key, request, outcome)
                        VALUES (key_segment, claimed.key, claimed.request, 'pending');
                    EXCEPTION WHEN lock_not_available OR unique_violation THEN
                        in_use := least(in_use + 1, 20);
                        known := known || claimed.place;
                        known_outcomes := known_outcomes || 'WG409'::text;
                    END;
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

-- Whose share a key counts against.
CREATE FUNCTION widgets.key_caller(request bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT substr(request, 17) $$;

-- Before a partition goes early: what outlives it moves to partition 0. Each caller keeps its newest keys up to half of
-- its even share of keys_max, those in the other partitions counted first; so half of keys_max at most is in partition
-- 0, and what is over a share there goes. Says how many went before their time.
CREATE FUNCTION widgets.keep_shares(going_segment integer, keys_max bigint) RETURNS bigint
LANGUAGE sql SET work_mem = '64MB' AS $$
    WITH callers AS MATERIALIZED (
        SELECT widgets.key_caller(request) AS caller,
            keys_max / 2 / count(*) OVER () - count(*) FILTER (WHERE segment NOT IN (0, going_segment)) AS share
        FROM widgets.idempotency_keys GROUP BY 1
    ), staying AS MATERIALIZED (
        SELECT ranked.segment, ranked.key, ranked.request, ranked.outcome
        FROM (
            -- Rows stand in a partition about as they came.
            SELECT kept.segment, kept.key, kept.request, kept.outcome, callers.share, row_number() OVER (
                    PARTITION BY callers.caller ORDER BY kept.segment = 0, kept.ended DESC, kept.ctid DESC
                ) AS place
            FROM widgets.idempotency_keys kept
            JOIN callers ON callers.caller = widgets.key_caller(kept.request) AND callers.share > 0
            WHERE kept.segment IN (0, going_segment)
        ) ranked
        WHERE ranked.place <= ranked.share
    ), moved AS (
        INSERT INTO widgets.idempotency_keys_0 (segment, key, request, outcome, ended)
        SELECT 0, staying.key, staying.request, staying.outcome, kept.ended
        FROM staying, widgets.keys_segments kept
        WHERE staying.segment = going_segment AND kept.segment = going_segment
    ), gone AS (
        DELETE FROM widgets.idempotency_keys_0 kept
        WHERE NOT EXISTS (SELECT FROM staying WHERE staying.segment = 0 AND staying.key = kept.key)
    )
    SELECT (SELECT count(*) FROM widgets.idempotency_keys WHERE segment IN (0, going_segment))
        - (SELECT count(*) FROM staying)
$$;

-- Lets go of idempotency keys that are older than so many hours, and where there are more than so many of the oldest of
-- those who use most; goes on to the next partition where the present one has had its part. Says how many there are,
-- and how many went before their time.
CREATE OR REPLACE FUNCTION widgets.keep_keys(
    retention_hours integer, keys_max bigint, OUT keys bigint, OUT early bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
#variable_conflict use_column
DECLARE
    current_segment integer;
    present bigint;
    apart bigint;
    going record;
    held bigint;
    retention CONSTANT interval := make_interval(hours => retention_hours);
    shares CONSTANT integer := 4;
    -- To look at more takes longer than a statement may. Where that was too long for fewer, as on a busy machine, keys
    -- pile up: then it is left out.
    shared_max CONSTANT bigint := least(2000000, keys_max + keys_max / 2);
BEGIN
    early := 0;
    SELECT count(*) INTO held FROM (SELECT FROM widgets.keys_segments FOR UPDATE SKIP LOCKED) held;
    IF held = shares THEN
        DELETE FROM widgets.idempotency_keys_0 WHERE ended < clock_timestamp() - retention;
    END IF;
    SELECT last_value INTO current_segment FROM widgets.keys_segment;
    EXECUTE format('SELECT count(*) FROM widgets.idempotency_keys_%s', current_segment) INTO present;
    SELECT count(*) INTO apart FROM widgets.idempotency_keys_0;
    SELECT present + apart + coalesce(sum(kept.keys), 0) INTO keys
    FROM widgets.keys_segments kept WHERE kept.segment <> current_segment;
    -- One at a time.
    IF held < shares OR present = 0 THEN
        RETURN;
    END IF;
    SELECT kept.segment, kept.keys, kept.ended < clock_timestamp() - retention AS is_over INTO going
    FROM widgets.keys_segments kept WHERE kept.segment = current_segment % shares + 1;
    IF keys <= keys_max AND present * shares < keys_max - apart AND (SELECT began FROM widgets.keys_segments kept
            WHERE kept.segment = current_segment) >= clock_timestamp() - retention / (shares - 2)
        OR going.keys > 0 AND NOT going.is_over AND keys < keys_max THEN
        RETURN;
    END IF;
    BEGIN
        IF going.keys > 0 AND NOT going.is_over THEN
            early := CASE WHEN keys <= shared_max THEN widgets.keep_shares(going.segment, keys_max) ELSE going.keys END;
        END IF;
        -- Nobody uses a key now: all that come write to the next partition, and see what is in this one.
        LOCK TABLE widgets.keys_turn IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('TRUNCATE widgets.idempotency_keys_%s', going.segment);
    EXCEPTION WHEN lock_not_available THEN
        early := 0;
        RETURN;
    END;
    UPDATE widgets.keys_segments SET ended = clock_timestamp(), keys = present WHERE segment = current_segment;
    UPDATE widgets.keys_segments SET began = clock_timestamp(), keys = 0 WHERE segment = going.segment;
    PERFORM setval('widgets.keys_segment', going.segment);
    keys := keys - CASE WHEN going.is_over THEN going.keys ELSE early END;
END
$$;

-- As before, but for the notification: whoever may connect may also notify, and keep a transaction open that listens, by
-- which notifications pile up. Where no more fit in, a transaction that has one fails at its commit: long before that
-- those who follow do without, as they look several times a second anyway.
CREATE OR REPLACE FUNCTION widgets.number_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 AS $$
DECLARE
    this_life text := widgets.life();
    latest record;
    this_first bigint;
    this_last bigint;
    moment bigint;
BEGIN
    -- Nobody is to see what a crash of this server could take back.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'local', true);
    END IF;
    LOCK TABLE widgets.changes_turn IN EXCLUSIVE MODE;
    SELECT epoch, life INTO latest FROM widgets.changes_epochs ORDER BY epoch DESC LIMIT 1;
    IF latest.life IS DISTINCT FROM this_life THEN
        latest.epoch := coalesce(latest.epoch, 0) + 1;
        INSERT INTO widgets.changes_epochs (epoch, after, life)
        VALUES (latest.epoch, widgets.newest_change(), this_life);
    END IF;
    SELECT last_value + 1 INTO this_first FROM widgets.changes_number;
    this_last := this_first - 1 + coalesce(cardinality(NEW.add_sns), 0)
        + coalesce(cardinality(NEW.pair_sns1), 0) + coalesce(cardinality(NEW.remove_sns), 0);
    PERFORM setval('widgets.changes_number', this_last);
    SELECT greatest(last_value, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
    INTO moment FROM widgets.changes_moment;
    PERFORM setval('widgets.changes_moment', moment);
    INSERT INTO widgets.changes_order (segment, change, first, last, at, epoch)
    VALUES (NEW.segment, NEW.id, this_first, this_last, moment, latest.epoch);
    IF pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('widgets_changes', '');
    END IF;
    RETURN NULL;
END
$$;
