-- The service's two lesser roles: run once, in psql, by a superuser or whoever may create roles; again to change the passwords.
--
--   FLEET_RUNTIME_PASSWORD=... FLEET_REPORT_PASSWORD=... psql --no-psqlrc --file=deploy/roles.sql "postgresql://postgres@HOST/postgres"
--
-- What they may do they get from `flask --app wsgi db upgrade`, each time, from fleet/grants.py.
\set ON_ERROR_STOP on
\getenv runtime_password FLEET_RUNTIME_PASSWORD
\getenv report_password FLEET_REPORT_PASSWORD

SELECT 'CREATE ROLE fleet_runtime LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'fleet_runtime') \gexec
SELECT 'CREATE ROLE fleet_report LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'fleet_report') \gexec
ALTER ROLE fleet_runtime PASSWORD :'runtime_password';
ALTER ROLE fleet_report PASSWORD :'report_password';

-- For whoever connects by hand. The service sets shorter ones for itself, and a long job of its own longer ones.
ALTER ROLE fleet_runtime SET statement_timeout = '15s';
ALTER ROLE fleet_runtime SET lock_timeout = '5s';
ALTER ROLE fleet_runtime SET idle_in_transaction_session_timeout = '30s';
ALTER ROLE fleet_report SET statement_timeout = '60s';
ALTER ROLE fleet_report SET lock_timeout = '1s';
ALTER ROLE fleet_report SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE fleet_report SET default_transaction_read_only = on;
