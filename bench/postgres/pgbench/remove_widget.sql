\set n :n + 1
\set i :start + :n * 32 + :client_id
\set one (:i * 7368787) % :widgets
SELECT widgets.remove_widget('W' || lpad(:one::text, 9, '0'));
