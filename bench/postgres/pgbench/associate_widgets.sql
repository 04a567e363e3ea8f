\set n :n + 1
\set i :start + :n * 32 + :client_id
\set one (2 * :i * 7368787) % :widgets
\set two ((2 * :i + 1) * 7368787) % :widgets
SELECT widgets.associate_widgets('W' || lpad(:one::text, 9, '0'), 'W' || lpad(:two::text, 9, '0'), 'Q');
