// Holds the precompiled header for every target; has no code of its own.
