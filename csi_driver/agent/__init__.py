"""The agent of a node: makes its records true. Read the record, look at the kernel, act, look again, write status."""
