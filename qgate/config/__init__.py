"""`qgate.toml`: reading it, checking it, saying what is wrong with it."""
