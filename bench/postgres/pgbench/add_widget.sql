\set n :n + 1
\set i :start + :n * 32 + :client_id
SELECT widgets.add_widget('A' || lpad(:i::text, 9, '0'), 'a widget of the bench', '{P,R}');
