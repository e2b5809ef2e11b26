"""How much I/O, for whom. Knows nothing of CSI, of volumes or of Kubernetes."""
