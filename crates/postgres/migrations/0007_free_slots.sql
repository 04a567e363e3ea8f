-- How many slots of each port type are free, as far as the statistics of the last ANALYZE tell.

-- The types of the slots in a column and whether they have a peer hang together: which types run short is
-- what one wants to know. ANALYZE counts the pairs in the rows that it samples anyway.
CREATE STATISTICS widgets.widgets_slot1 (mcv) ON port1, (peer1 IS NULL) FROM widgets.widgets;
CREATE STATISTICS widgets.widgets_slot2 (mcv) ON port2, (peer2 IS NULL) FROM widgets.widgets;
CREATE STATISTICS widgets.widgets_slot3 (mcv) ON port3, (peer3 IS NULL) FROM widgets.widgets;
