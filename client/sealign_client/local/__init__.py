"""What stays at this machine: keys, maps, alignments under way, means of the client's own texts. Files are 0600."""
