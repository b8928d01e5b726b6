"""Where and when: policies decide, a shell of processes executes."""
