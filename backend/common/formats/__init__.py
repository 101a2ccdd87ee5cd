"""How the admin writes dates and times (FORMAT_MODULE_PATH); Django looks for a package of each language."""
