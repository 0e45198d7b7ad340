"""The InfluxDB sink: settings, a spool on disk, requests. Imports the schema, the points and `policyserver.common`."""
