"""Small programs for the developers of Datahog."""
