"""Networks only: no losses, no files, no devices; one architecture a file."""
