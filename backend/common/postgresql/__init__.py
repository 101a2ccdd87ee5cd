"""Django's PostgreSQL backend, for servers that may hang; Django wants a package with a module `base`."""
