"""Programs for whoever maintains the project."""
