-- Distributes the table, in one transaction and after all migrations. This is not a migration, because most databases
-- are never distributed. $shards stands for the number of shards.

-- The two halves of an association may be on different nodes, and widgets_both_halves would see only one of them. The
-- other triggers look at one row at most, so they stay, on every shard (Citus calls all triggers "unsafe"). While
-- existing widgets are moved, they come with their peers, so widgets_come_without_peers is dropped until then.
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
