"""scap files to capture rows and back: who did it, on which file, merged from enter and exit."""
