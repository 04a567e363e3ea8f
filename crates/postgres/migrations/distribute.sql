-- What distributing the table takes, in one transaction and after all migrations; no migration by itself, as most
-- databases never do it. $shards stands for how many.

-- Half of an association may be on another node than the other half: this trigger would see one of them only. The
-- others look at one row, or at none, and stay, on every shard ("unsafe" is what Citus calls all triggers). Widgets
-- that are there are moved with their peers.
DROP TRIGGER widgets_both_halves ON widgets.widgets;
DROP TRIGGER widgets_come_without_peers ON widgets.widgets;
SET LOCAL citus.enable_unsafe_triggers = on;
SET LOCAL citus.multi_shard_modify_mode = 'sequential';
SELECT create_distributed_table('widgets.widgets', 'serial_number', shard_count := $shards);
CREATE TRIGGER widgets_come_without_peers AFTER INSERT ON widgets.widgets FOR EACH ROW
    WHEN (num_nonnulls(NEW.peer1, NEW.peer2, NEW.peer3) > 0)
    EXECUTE FUNCTION widgets.refuse_peers();

CREATE OR REPLACE FUNCTION widgets.is_distributed() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true';
CREATE OR REPLACE FUNCTION widgets.shard_of(serial_number text) RETURNS bigint LANGUAGE sql STABLE AS
    $$ SELECT pg_catalog.get_shard_id_for_distribution_column('widgets.widgets', serial_number) $$;
