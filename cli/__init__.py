"""The command line: one command in each file, which parses, calls the library and prints."""
