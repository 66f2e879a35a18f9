"""Random tables, written in random forms: what is published is what was written, or refused for a true reason."""
