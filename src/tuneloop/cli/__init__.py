"""The command line: parses, calls the rooms, prints. Nothing else prints or ends the process."""
