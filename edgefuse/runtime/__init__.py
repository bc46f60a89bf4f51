"""Running fusion models without torch: backends, the fuser, sources, the live loop and its sinks."""
