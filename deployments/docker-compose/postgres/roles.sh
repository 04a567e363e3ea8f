# Runs once, when the database is created: creates the roles that log in over the network, with their passwords.
set -euo pipefail
psql --no-psqlrc --quiet --username="$POSTGRES_USER" --set=ON_ERROR_STOP=1 \
  --set=authenticator="$(</secrets/authenticator)" --set=metrics="$(</secrets/metrics)" <<'SQL'
CREATE ROLE authenticator LOGIN NOINHERIT PASSWORD :'authenticator';
CREATE ROLE metrics LOGIN PASSWORD :'metrics' IN ROLE pg_monitor;
SQL
