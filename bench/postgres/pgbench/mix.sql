-- 40 % adds, 40 % associations, 10 % removals of associations, 10 % removals of widgets.
\set n :n + 1
\set i :start + :n * 32 + :client_id
\set one (2 * :i * 7368787) % :widgets
\set two ((2 * :i + 1) * 7368787) % :widgets
\set kind :n % 10
\if :kind = 9
\set gone ((:removed + :i - :start) * 7368787) % :widgets
SELECT widgets.remove_widget('W' || lpad(:gone::text, 9, '0'));
\elif :kind = 4
-- The association that this client made just before.
\set one (2 * (:i - 32) * 7368787) % :widgets
\set two ((2 * (:i - 32) + 1) * 7368787) % :widgets
SELECT widgets.remove_association('W' || lpad(:one::text, 9, '0'), 'W' || lpad(:two::text, 9, '0'), 'Q');
\elif :kind = 1 or :kind = 3 or :kind = 6 or :kind = 8
SELECT widgets.associate_widgets('W' || lpad(:one::text, 9, '0'), 'W' || lpad(:two::text, 9, '0'), 'Q');
\else
SELECT widgets.add_widget('A' || lpad(:i::text, 9, '0'), 'a widget of the bench', '{P,R}');
\endif
