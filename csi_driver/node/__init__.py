"""The node's verbs: they act at once, on this machine. Unpublish and unstage work from the kernel alone."""
