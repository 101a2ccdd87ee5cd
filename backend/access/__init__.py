"""Who may do what: devices with their keys and scopes, and the admin's roles."""
