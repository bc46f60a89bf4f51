"""A connected camera: opened, read, reopened when it is lost, and prepared for the fusion."""
